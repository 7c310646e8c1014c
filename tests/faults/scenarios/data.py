"""Images that are not those of before."""

from __future__ import annotations

import shutil

from tests.faults.lab import Lab, Outcome
from tests.faults.scenarios.disk import flip_bit
from tests.running import Finished, run_module, user_errors


def change_manifest(lab: Lab) -> Outcome:
    """Other images lie in the shard folder: refused with one line, unless told to accept."""
    folder, shards = lab.stopped(1), lab.folder / "other-shards"
    if not shards.exists():
        options = ("--split", "all", "--samples-per-shard", 64, "--seed", 1)
        result = run_module("data_prep.celeba", "--source", lab.faces, "--out", shards, *options)
        assert result.returncode == 0, result
    changed = ("--data.shards", shards)
    line = _refused(lab.run(folder, *changed, ranks=1))
    assert f"the images in {shards} are not those of before" in line
    result = lab.finish(folder, *changed, "--run.accept_changes", "true", ranks=1)
    assert "going on although the images" in result.stderr
    return Outcome(detail="refused; went on when told to accept")


def change_shard(lab: Lab) -> Outcome:
    """A byte of a shard has changed: refused with one line that names the file, whatever is accepted."""
    folder, shards = lab.stopped(1), lab.folder / f"changed-shards-{lab.new_run().name}"
    shutil.copytree(lab.shards, shards)
    victim = lab.chance.choice(sorted(shards.glob("*.tar")))
    flip_bit(victim)
    accept = ("--run.accept_changes", "true")
    line = _refused(lab.run(folder, *accept, "--data.shards", shards, ranks=1))
    assert f"{victim}: damaged" in line
    return Outcome(detail="refused with one line")


def _refused(result: Finished) -> str:
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr, result.stderr
    (line,) = user_errors(result)
    return line
