"""Files damaged at random and then read: each ends in one clear line or in the right result, and in nothing else."""

from __future__ import annotations

import contextlib
import io
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import yaml

from dcgan_dist.base.errors import UserError
from dcgan_dist.command_line.config_problems import problems_of
from dcgan_dist.command_line.train_config import parse_arguments, write_yaml
from dcgan_dist.command_line.yaml_settings import read_settings
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import MANIFEST_NAME, Manifest, index_name, read_manifest
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.run.checkpoint import read_verified
from dcgan_dist.run.saved import Saved
from dcgan_dist.training.plan import Plan, restore
from dcgan_dist.training.recorder import FIGURE_NAMES
from dcgan_dist.training.resume import check_identity, choose_global_batch
from dcgan_dist.training.stability import StabilityWatch
from dcgan_dist.training.state import TrainState
from tests.faults.lab import GLOBAL_BATCH, Lab
from tests.running import assert_same_tensors, checkpoints, load_checkpoint

SECONDS_FOR_ONE = 20  # a reader that takes longer hangs
ALONE = World(0, 1, 0, 1, torch.device("cpu"))

# --- what can happen to bytes -----------------------------------------------------------------------------------------

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(content: bytes, chance: random.Random) -> bytes:
    """Up to eight bits anywhere."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(content: bytes, chance: random.Random) -> bytes:
    """The end is missing; sometimes everything."""
    return content[: chance.choice((0, chance.randrange(len(content)), len(content) - 1))]


def delete_range(content: bytes, chance: random.Random) -> bytes:
    """Some bytes in the middle are missing."""
    start, end = _range(content, chance)
    return content[:start] + content[end:]


def zero_range(content: bytes, chance: random.Random) -> bytes:
    """A block was never written."""
    start, end = _range(content, chance)
    return content[:start] + bytes(end - start) + content[end:]


def insert_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes of something else in between."""
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.randbytes(chance.choice((1, 2, 16, 4096))) + content[place:]


def repeat_range(content: bytes, chance: random.Random) -> bytes:
    """A block was written twice."""
    start, end = _range(content, chance)
    return content[:end] + content[start:end] + content[end:]


def swap_lines(content: bytes, chance: random.Random) -> bytes:
    """Two lines have changed places."""
    lines = content.splitlines(keepends=True)
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def repeat_line(content: bytes, chance: random.Random) -> bytes:
    """A line comes twice."""
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: (place := chance.randrange(len(lines)) + 1)] + lines[place - 1 :])


def change_word(content: bytes, chance: random.Random) -> bytes:
    """Another value in place of a number or a name."""
    words = content.split(b" ")
    strange = [b"-1", b"1e999", b"NaN", b"null", b"true", b"2001-99-99", b"[]", b"{}", b'"', b"\xff", b"&a *a"]
    strange += [b"9" * 5000, b"[" * 3000, chance.choice(words)]
    words[chance.randrange(len(words))] = chance.choice(strange)
    return b" ".join(words)


ANYWHERE: tuple[Mutation, ...] = (flip_bits, truncate, delete_range, zero_range, insert_bytes, repeat_range)
IN_TEXT: tuple[Mutation, ...] = (*ANYWHERE, swap_lines, repeat_line, change_word)


def _range(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content))
    return start, min(len(content), start + chance.choice((1, 8, 100, 5000)))


# --- what can be wrong inside a checkpoint whose bytes are sound ------------------------------------------------------


def change_contents(saved: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One entry, at any depth, is missing, of another kind, or a tensor of another shape."""
    changed = _copy(saved)
    where, parent = changed, changed
    key: Any = None
    while isinstance(where, dict) and where and (key is None or chance.random() < 0.7):
        key, parent = chance.choice(list(where)), where
        where = where[key]
    if chance.random() < 0.4:
        del parent[key]
    elif isinstance(where, torch.Tensor):
        parent[key] = chance.choice((torch.zeros(3, 5, 7), torch.zeros(0), "text", None))
    else:
        parent[key] = chance.choice(("text", -1, None, [], {}, 2.5, {"a": {}}, torch.zeros(2)))
    return changed


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# --- what is damaged, and how it is read ------------------------------------------------------------------------------


@dataclass
class Sample:
    """Sound files of each kind, and what they hold."""

    folder: Path
    config: TrainConfig
    checkpoint: Path
    contents: dict[str, Any]
    shards: Path
    manifest: Manifest
    images: list[bytes]

    @classmethod
    def make(cls, lab: Lab) -> Sample:
        """From an undisturbed run of `lab`."""
        checkpoint = checkpoints(lab.reference(1))[-1]
        manifest = read_manifest(lab.shards)
        folder = lab.folder / "mutations"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_bytes((lab.reference(1) / "config.yaml").read_bytes())
        return cls(
            folder,
            parse_arguments(["--config", str(folder / "config.yaml")]),
            checkpoint,
            load_checkpoint(checkpoint),
            lab.shards,
            manifest,
            _images(MappedShards(lab.shards, manifest)),
        )


def mutate_and_read(sample: Sample, chance: random.Random) -> str | None:
    """Damages one file of a random kind and reads it; what happened, if that is neither right nor one clear line."""
    kinds = (_checkpoint, _contents, _manifest, _index, _tar, _configuration)
    kind = chance.choice(kinds)
    seed = chance.randrange(2**32)
    try:
        with _time_limit(), contextlib.redirect_stderr(io.StringIO()):
            kind(sample, random.Random(seed))
    except UserError as error:
        return None if _is_clear(str(error)) else f"{kind.__name__} {seed}: not a clear line: {error!r}"
    except BaseException:
        return f"{kind.__name__} {seed}: {traceback.format_exc(limit=-4)}"
    return None


def _is_clear(message: str) -> bool:
    """Short enough to be read, and without the names of what went wrong inside alone."""
    return 20 < len(message) < 2000 and "Traceback" not in message


def _checkpoint(sample: Sample, chance: random.Random) -> None:
    path = sample.folder / "000000001.pt"
    path.write_bytes(chance.choice(ANYWHERE)(sample.checkpoint.read_bytes(), chance))
    content = read_verified(path)
    assert_same_tensors(torch.load(io.BytesIO(content), weights_only=True), sample.contents)


def _contents(sample: Sample, chance: random.Random) -> None:
    """Nothing can tell that another number is the wrong one; but it must load, or be refused in a line."""
    path = sample.folder / "000000002.pt"
    torch.save(change_contents(sample.contents, chance), path)
    saved = Saved.from_contents(torch.load(io.BytesIO(read_verified(path)), weights_only=True))
    check_identity(sample.config, sample.manifest.fingerprint, saved)
    choose_global_batch(sample.config.data, ALONE, saved, sample.manifest.samples)
    _restore_and_step(sample, saved)


def _restore_and_step(sample: Sample, saved: Saved) -> None:
    precision = Precision("fp32", ALONE.device)
    batches = BatchPlan.of(sample.config.data, 0, sample.manifest.samples, GLOBAL_BATCH, ALONE)
    state = restore(sample.config, Plan(sample.manifest, saved, batches, 10**6, precision, classes=None), ALONE)
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.zeros_like(weight)
        optimizer.step()
    _use_watch(state, sample)


def _use_watch(state: TrainState, sample: Sample) -> None:
    """What a resumed run does with it until its next checkpoint."""
    figures = dict.fromkeys((*FIGURE_NAMES.values(), "gradient/generator"), 1.0)
    watch = StabilityWatch(10**6, GLOBAL_BATCH, sample.config.data.image_size)
    watch.row(state.watch, state.images_seen + GLOBAL_BATCH, figures)
    watch.grid(state.watch, state.images_seen + GLOBAL_BATCH, 0.5)
    assert isinstance(state.watch.trusted_images, int)


def _manifest(sample: Sample, chance: random.Random) -> None:
    folder = sample.folder / "manifest"
    folder.mkdir(exist_ok=True)
    content = (sample.shards / MANIFEST_NAME).read_bytes()
    (folder / MANIFEST_NAME).write_bytes(chance.choice(IN_TEXT)(content, chance))
    assert read_manifest(folder) == sample.manifest, "another manifest was accepted"


def _index(sample: Sample, chance: random.Random) -> None:
    _shard_file(sample, chance, index_name(chance.choice(sample.manifest.shards).file), IN_TEXT)


def _tar(sample: Sample, chance: random.Random) -> None:
    _shard_file(sample, chance, chance.choice(sample.manifest.shards).file, ANYWHERE)


def _shard_file(sample: Sample, chance: random.Random, name: str, mutations: tuple[Mutation, ...]) -> None:
    """A shard folder of links to the sound files, in which one is damaged, or missing."""
    folder = sample.folder / "shards"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for path in sample.shards.iterdir():
        if path.name != name:
            (folder / path.name).symlink_to(path)
    if chance.random() < 0.9:
        (folder / name).write_bytes(chance.choice(mutations)((sample.shards / name).read_bytes(), chance))
    shards = MappedShards(folder, read_manifest(folder))
    shards.verify(0, 1)
    assert _images(shards) == sample.images, "other images were accepted"


def _images(shards: MappedShards) -> list[bytes]:
    return [np.asarray(shards.jpeg(number)).tobytes() for number in range(len(shards))]


def _configuration(sample: Sample, chance: random.Random) -> None:
    path = sample.folder / "mutated.yaml"
    path.write_bytes(chance.choice(IN_TEXT)((sample.folder / "config.yaml").read_bytes(), chance))
    config = parse_arguments(["--config", str(path)])
    assert not problems_of(config)
    _assert_says_the_same(read_settings(path.read_text()), yaml.safe_load(write_yaml(config)))


def _assert_says_the_same(written: Any, used: Any) -> None:
    """Nothing that stands in the file was overlooked."""
    for section, fields in (written or {}).items():
        for name, value in (fields or {}).items():
            # 1 and 1.0 are one number; text that looks like a number may stay text.
            taken = used[section][name]
            assert str(taken) == str(value) or float(taken) == float(value), f"{section}.{name} = {value}: {taken} used"


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """TimeoutError after a while, in the main thread."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not read after {SECONDS_FOR_ONE} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_FOR_ONE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
