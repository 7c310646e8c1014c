"""The colours of the report and the looks of its curves: of the page, light and dark, and of the pictures alike."""

from __future__ import annotations

from dataclasses import dataclass

LIGHT = {
    "page": "#f6f7f9",
    "card": "#fff",
    "ink": "#16191d",
    "quiet": "#5c6570",
    "rule": "#e3e7ec",
    "accent": "#0062a8",
    "good": "#00704f",
    "bad": "#b3261e",
    "warn": "#8a5a00",
    "alarm": "#fff4dc",
}
"""Pictures have these; the page has them as `--page` and so on, and those of `DARK` on a dark screen."""

DARK = {
    "page": "#101317",
    "card": "#191d23",
    "ink": "#e8ebef",
    "quiet": "#9aa4b0",
    "rule": "#2c323a",
    "accent": "#6cb8f0",
    "good": "#4fd1a5",
    "bad": "#ff8a80",
    "warn": "#ffc15e",
    "alarm": "#33270f",
}


@dataclass(frozen=True)
class CurveStyle:
    """What tells a curve from the others on its chart. `dash`: lengths on, off, ... in widths of the line."""

    light: str
    dark: str
    dash: tuple[float, ...] = ()


CURVE_STYLES = (
    # Okabe and Ito's colours, which colour-blind readers tell apart, darkened where white paper asks for it.
    CurveStyle("#0072b2", "#56b4e9"),
    CurveStyle("#d55e00", "#f08b3c", (3.3, 1.7)),
    CurveStyle("#008a66", "#35c79f", (1.1, 1.4)),
    CurveStyle("#b0528f", "#e08fc0", (5, 1.7, 1.1, 1.7)),
    CurveStyle("#8a6d00", "#e8d44d", (0.6, 1.7)),
    CurveStyle("#444b54", "#c3cad2"),
)


def curve_style(number: int) -> CurveStyle:
    """The style of the curve with this number; beyond the last one they come again."""
    return CURVE_STYLES[number % len(CURVE_STYLES)]
