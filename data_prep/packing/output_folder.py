"""The folder of shards: nobody else in it, nothing foreign in it, finished when its manifest is written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from data_prep.packing.plan import plan_digest
from data_prep.packing.shard_writer import AnyPlan, Record, extreme, record_path, remove_half_written
from dcgan_dist.base.errors import UserError
from dcgan_dist.data import shard_format
from dcgan_dist.data.shard_format import Manifest, ShardError
from dcgan_dist.data.shard_index import read_index


@contextlib.contextmanager
def output_folder(out: Path, option: str = "--out") -> Iterator[None]:
    """Makes the folder if need be and keeps other preparations out while the block runs.

    Raises UserError naming the `option` that says which folder.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{option} {out}: cannot be used as a folder ({error.strerror})") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{option} {out}: another preparation is writing there; wait for it to end") from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(handle)


def find_finished(out: Path, plan: AnyPlan, skip_damaged: bool) -> Manifest | None:
    """The manifest if the plan is carried out already; UserError if the folder holds something else."""
    if (out / shard_format.MANIFEST_NAME).exists():
        return _check_manifest(out, plan, skip_damaged)
    foreign = [path.name for path in sorted(out.glob("*.tar")) if path.name not in plan.shards]
    for tar_name in plan.shards:
        record = Record.load(record_path(out, tar_name))
        if record and record.digest != _digest(plan, tar_name):
            foreign.append(tar_name)
    if foreign:
        raise UserError(
            f"--out {out}: holds {foreign[0]} from an unfinished preparation with another source or other options; "
            "give that command again to finish it, or choose another folder"
        )
    return None


def _check_manifest(out: Path, plan: AnyPlan, skip_damaged: bool) -> Manifest | None:
    try:
        manifest = shard_format.read_manifest(out)
    except ShardError as error:
        raise UserError(f"{error}, after removing this one, or choose another folder") from None
    if different := _differences(manifest, plan):
        raise UserError(f"--out {out}: holds other shards already ({different}); choose another folder")
    try:
        shard_format.check_sizes(out, manifest)
    except ShardError as problem:
        print(f"{problem}. Writing all shards again.", file=sys.stderr)
        (out / shard_format.MANIFEST_NAME).unlink()
        return None
    for shard in manifest.shards:
        planned = plan.shard(shard.file)
        if not planned.fits(read_index(out / shard_format.index_name(shard.file))):
            other = f"holds shards of other images than those in {planned.source.path}"
            raise UserError(f"--out {out}: {other}; choose another")
    if manifest.skipped and not skip_damaged:
        raise UserError(
            f"--out {out}: was made without {damaged_images(manifest)}; remove it if they are repaired, or say "
            "--skip-damaged again"
        )
    return manifest


def damaged_images(manifest: Manifest) -> str:
    """How many images were left out, and some of their names."""
    skipped = manifest.skipped
    named = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    return f"{len(skipped)} damaged image{'s' if len(skipped) > 1 else ''}: {named}"


def _differences(manifest: Manifest, plan: AnyPlan) -> str:
    """What the shards were made from that is not what is asked for now; empty if nothing."""
    compared = [
        ("data set", manifest.dataset, plan.dataset),
        ("--split", manifest.split, plan.split),
        ("--seed", manifest.seed, plan.seed),
    ]
    different = [f"{name} {theirs}, not {ours}" for name, theirs, ours in compared if theirs != ours]
    if not different and manifest.plan != plan_digest(_digest(plan, tar_name) for tar_name in plan.shards):
        different = ["made from another --source, with another --samples-per-shard or by an older version"]
    return ", ".join(different)


def _digest(plan: AnyPlan, tar_name: str) -> str:
    planned = plan.shard(tar_name)
    return planned.digest(planned.annotations())


def make_ready(out: Path, plan: AnyPlan) -> None:
    """Refuses a folder that cannot be written to, and removes what a killed preparation left half-written."""
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: cannot be written to; choose another folder or change its permissions")
    remove_half_written(out, plan)


def finish(out: Path, plan: AnyPlan, records: list[Record]) -> Manifest:
    """Writes the manifest, after which the records have served. Raises UserError if there is no image."""
    packed = [record for record in records if record.shard.samples]
    if not packed:
        remove_records(out, plan)  # so that another --filter may be tried in the folder
        raise UserError(f"--out {out}: {_nothing_left(records)}")
    manifest = Manifest(
        dataset=plan.dataset,
        split=plan.split,
        seed=plan.seed,
        samples=sum(record.shard.samples for record in records),
        smallest_image=extreme(min, [record.smallest_image for record in packed]),
        largest_image=extreme(max, [record.largest_image for record in packed]),
        skipped=tuple(sorted(name for record in records for name in record.skipped)),
        shards=tuple(record.shard for record in packed),
        plan=plan_digest(record.digest for record in records),
    )
    shard_format.write_manifest(out, manifest)
    remove_records(out, plan)
    return manifest


def _nothing_left(records: list[Record]) -> str:
    """That all images are left out, why, and what to do."""
    small = sum(len(record.small) for record in records)
    left_out = sum(len(record.skipped) for record in records)
    advice = "give a smaller --filter or another --source" if small else "give good copies, or another --source"
    return f"all {left_out} images are left out ({left_out - small} damaged, {small} small); {advice}"


def remove_records(out: Path, plan: AnyPlan) -> None:
    """Removes the records, also those that a crash left beside a manifest."""
    for path in out.glob(".*.record"):
        if path.name[1:].removesuffix(".record") in plan.shards:
            path.unlink(missing_ok=True)
