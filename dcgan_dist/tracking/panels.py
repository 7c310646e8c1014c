"""Which figures are looked at together, and what a reader calls them: for TensorBoard, W&B and the report alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Figures that are shown together: their names in metrics.jsonl, and what a reader calls them."""

    title: str
    unit: str
    figures: dict[str, str]
    scale: float = 1
    top: float | None = None
    of_logits: bool = False
    """Some losses give logits, of any size, in the place of probabilities."""


PANELS = (
    Panel("Loss", "binary cross-entropy", {"loss/discriminator": "discriminator D", "loss/generator": "generator G"}),
    Panel(
        "What D believes",
        "probability of being real",
        {"score/real": "real, D(x)", "score/fake": "generated, D(G(z))"},
        top=1,
        of_logits=True,
    ),
    Panel("Gradient", "norm, generator's last step", {"gradient/generator": "generator G"}),
    Panel("Throughput", "images/s, all ranks", {"speed/images_per_second": "images/s"}),
    Panel("Waiting for data", "% of the time", {"speed/data_wait_fraction": "waiting"}, scale=100),
)

NO_CURVES = {"memory/peak_gib", "speed/images_per_second_per_rank"}
"""Figures whose curves tell nothing: flat, or another one in a different unit."""

QUALITY = {
    "swd": ("Sliced Wasserstein distance", "lower is better"),
    "fid": ("FID", "lower is better"),
    "kid": ("KID", "lower is better"),
    "ms_ssim": ("MS-SSIM between samples", "higher means less variety"),
}
