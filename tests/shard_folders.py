"""Small shard folders of any JPEGs, good or bad, made by hand."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import Manifest, Shard, file_sha256, index_name, read_manifest, write_manifest
from dcgan_dist.data.shard_index import index_lines


def jpeg(height: int, width: int, mode: str = "RGB", seed: int = 0, **options: object) -> bytes:
    """A textured JPEG: coloured waves, an edge and some noise; `options` are Pillow's."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(x * random.uniform(5, 40) + y * random.uniform(5, 40) + phase) for phase in range(3)]
    values = 127 + 70 * np.stack(waves, axis=-1) + 40 * (x > y)[..., None] + random.normal(0, 8, (height, width, 3))
    buffer = io.BytesIO()
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode)
    image.save(buffer, "JPEG", **({"quality": 92} | options))  # type: ignore[arg-type]
    return buffer.getvalue()


def write_shards(
    folder: Path,
    jpegs: Mapping[str, bytes],
    smallest: tuple[int, int] = (1, 1),
    largest: tuple[int, int] = (999, 999),
) -> MappedShards:
    """Packs the images into one shard, key by key, without looking at them, and opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    tar = folder / "celeba-all-000000.tar"
    with tarfile.open(tar, "w") as archive:
        for key, content in jpegs.items():
            for name, part in ((f"{key}.jpg", content), (f"{key}.json", b"{}")):
                member = tarfile.TarInfo(name)
                member.size = len(part)
                archive.addfile(member, io.BytesIO(part))
    index = folder / index_name(tar.name)
    index.write_text(index_lines(tar))
    shard = Shard(tar.name, len(jpegs), tar.stat().st_size, file_sha256(tar), file_sha256(index))
    write_manifest(folder, Manifest("celeba", "all", 0, len(jpegs), smallest, largest, (), (shard,)))
    return MappedShards(folder, read_manifest(folder))
