"""A run's curves as one picture, drawn from its metrics.jsonl."""

from __future__ import annotations

import io
import json
from pathlib import Path

from dcgan_dist.base.files import atomic_write

PANELS = (
    ("loss", {"loss/discriminator": "discriminator", "loss/generator": "generator"}),
    ("probability of real", {"score/real": "D(x), real images", "score/fake": "D(G(z)), drawn images"}),
    ("images a second", {"speed/images_per_second": "all ranks"}),
)


def draw_curves(metrics: Path, out: Path) -> None:
    """Draws losses, scores and speed against images seen into the PNG `out`; does nothing if there are no rows yet."""
    from matplotlib.figure import Figure  # not pyplot: no window system is looked for

    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    if not rows:
        return
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    images_seen = [row["images_seen"] for row in rows]
    for axes, (title, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, label in curves.items():
            axes.plot(images_seen, [row[name] for row in rows], label=label, linewidth=1.2)
        axes.set_title(title)
        axes.set_xlabel("images seen")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    with atomic_write(out) as file:
        file.write(picture.getvalue())
