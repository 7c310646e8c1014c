"""The model card: what the network draws, what it learned from and how, how good it is, and what it may be used for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dcgan_dist import __version__
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.grid import save_grid
from dcgan_dist.data.shard_format import Manifest, read_manifest
from dcgan_dist.generating.latents import independent
from dcgan_dist.metrics.scores import read_scores
from dcgan_dist.run.trained import Trained

SAMPLES = 64
METRIC_NAMES = {
    "swd": "sliced Wasserstein distance",
    "ms_ssim": "MS-SSIM between samples",
    "fid": "FID",
    "kid": "KID",
}


def write_card(trained: Trained, folder: Path, differences: dict[str, float]) -> None:
    """Writes README.md, samples.png and, where the run has them, curves.png into `folder`.

    `differences`: of each exported file the largest difference to the checkpoint's images.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    size = trained.config.model.latent_size
    latents = independent(0, size)(0, SAMPLES)
    save_grid(trained.draw(trained.classes.beside(latents, 0) if trained.classes else latents), folder / "samples.png")
    run = _run_folder(trained)
    curves = run is not None and (run / "curves.png").is_file()
    if run and curves:
        shutil.copyfile(run / "curves.png", folder / "curves.png")
    environment = Environment(
        loader=PackageLoader("dcgan_dist.exporting", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    card = environment.get_template("card.md.j2").render(
        version=__version__,
        config=trained.config,
        trained=trained,
        classes=trained.classes,
        saved=trained.saved,
        parameters=sum(weight.numel() for weight in trained.generator.parameters()),
        manifest=_manifest(trained),
        differences=differences,
        scores=_scores(trained, run),
        curves=curves,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _run_folder(trained: Trained) -> Path | None:
    """Returns the run folder that the checkpoint lies in, if any."""
    parent = trained.path.absolute().parent
    return parent.parent if parent.name == "checkpoints" else None


def _manifest(trained: Trained) -> Manifest | None:
    """Returns the manifest of the training images, if they are still where the run had them."""
    try:
        manifest = read_manifest(trained.config.data.shards)
    except UserError:
        return None
    return manifest if manifest.fingerprint == trained.saved.dataset_fingerprint else None


def _scores(trained: Trained, run: Path | None) -> list[dict[str, Any]]:
    """The newest score of this network for each metric and protocol."""
    network = "ema" if trained.averaged else "generator"
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_scores(run / "scores.jsonl") if run else []:
        if row["images_seen"] == trained.images_seen and row.get("network", network) == network:
            name = METRIC_NAMES.get(row["metric"], row["metric"])
            newest[row["metric"], row["protocol_key"]] = row | {"name": name}
    return list(newest.values())
