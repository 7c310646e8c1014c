"""Lays out a workspace on Weights & Biases: `python -m dcgan_dist.dashboard [--entity E] [--project P] [--dry-run]`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dcgan_dist.base.errors import UserError, exit_cleanly, in_one_line
from dcgan_dist.base.waiting import told_if_long
from dcgan_dist.config import TrackConfig

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import LinePlot
    from wandb_workspaces.workspaces import Section, Workspace

DESCRIPTION = """Lays out a workspace for the runs of a project on Weights & Biases: grids, losses, scores of quality,
throughput per rank, waiting for data, events; everything over images seen. Each call makes a new workspace.

python -m dcgan_dist.dashboard --dry-run          prints its specification; needs neither network nor key
python -m dcgan_dist.dashboard --project faces    makes it, and prints its address"""


def main() -> int:
    """Makes the workspace or prints what it would be; the exit status."""
    given = parse_arguments()
    try:
        import wandb_workspaces.workspaces  # noqa: F401  (answers whether it is there)
    except ImportError:
        raise UserError("wandb-workspaces is not installed; pip install -c constraints.txt -e '.[after]'") from None
    if given.dry_run:
        print(specification(lay_out(given.entity or "your-entity", given.project)))
        return 0
    print(save(given.entity, given.project))
    return 0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan_dist.dashboard",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--entity", metavar="E", help="user or team on W&B; default: that of your API key")
    parser.add_argument(
        "--project", metavar="P", default=TrackConfig().wandb_project, help="the runs' project; default: %(default)s"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the workspace's specification, as JSON")
    given = parser.parse_args(arguments)
    for name in ("entity", "project"):
        value = getattr(given, name)
        if value is not None and (not value.strip() or "/" in value):
            parser.error(f"--{name} {value!r}: must be a plain name; user and project are given apart")
    return given


def save(entity: str | None, project: str) -> str:
    """Makes the workspace on the server; its address. Raises UserError without a key, network or such a project."""
    import wandb

    from dcgan_dist.tracking.weights_and_biases import has_key

    if not has_key():
        raise UserError("no W&B API key found; run wandb login, set WANDB_API_KEY, or look at it with --dry-run")
    try:
        workspace = lay_out(entity or wandb.Api().default_entity or "", project)
        with told_if_long("W&B to take the workspace"):
            workspace.save()
        return workspace.url
    except Exception as error:  # of the network, the server's answers, and what the library makes of them
        reason = in_one_line(error, 200)
        raise UserError(f"{entity or 'your entity'}/{project}: W&B did not take the workspace ({reason})") from None


def specification(workspace: Workspace) -> str:
    """The workspace as it would be sent, as JSON."""
    return workspace._to_model().model_dump_json(indent=1, by_alias=True, exclude_none=True)


def lay_out(entity: str, project: str) -> Workspace:
    """The workspace, in the order in which one looks: pictures, what the losses say, scores, speed, events."""
    from wandb_workspaces.workspaces import RunsetSettings, Workspace, WorkspaceSettings

    return Workspace(
        entity=entity,
        project=project,
        name="DCGAN training",
        sections=[_samples(), _training(), _quality(), _speed(), _events()],
        settings=WorkspaceSettings(x_axis="images_seen", max_runs=20),
        # The runs of further nodes hold nothing but the system's figures.
        runset_settings=RunsetSettings(filters="Metric('JobType') != 'node'"),
    )


def _samples() -> Section:
    from wandb_workspaces.reports.v2.interface import MediaBrowser

    grids = {
        "samples/fixed_latents_ema": "Averaged weights",
        "samples/fixed_latents": "Last weights",
        "samples/real": "Real images",
    }
    panels = [
        MediaBrowser(title=title, media_keys=[name], num_columns=1, mode="gallery", gallery_axis="step")
        for name, title in grids.items()
    ]
    return _section("Samples", panels)


def _training() -> Section:
    from dcgan_dist.tracking.panels import PANELS

    shown = [
        panel for panel in PANELS if any(name.startswith(("loss/", "score/", "gradient/")) for name in panel.figures)
    ]
    return _section("Training", [_lines(panel.title, panel.unit, *panel.figures) for panel in shown])


def _quality() -> Section:
    from wandb_workspaces.reports.v2.interface import ScalarChart

    from dcgan_dist.tracking.panels import QUALITY
    from dcgan_dist.tracking.weights_and_biases import LOWER_IS_BETTER

    curves = [_lines(title, unit, f"quality/{name}") for name, (title, unit) in QUALITY.items()]
    best = [ScalarChart(title=f"Best {QUALITY[name][0]}", metric=f"best/{name}") for name in LOWER_IS_BETTER]
    return _section("Quality", [*curves, *best])


def _speed() -> Section:
    return _section(
        "Speed",
        [
            _lines("Throughput per rank", "images/s, one GPU or process", "speed/images_per_second_per_rank"),
            _lines("Throughput", "images/s, all ranks", "speed/images_per_second"),
            _lines("Waiting for data", "fraction of the time", "speed/data_wait_fraction"),
            _lines("Peak memory", "GiB on rank 0", "memory/peak_gib"),
        ],
    )


def _events() -> Section:
    return _section(
        "Events", [_lines("Ranks", "how many there were", "events/ranks"), _lines("Warnings", "", "events/warnings")]
    )


def _lines(title: str, unit: str, *figures: str) -> LinePlot:
    from wandb_workspaces.reports.v2.interface import LinePlot

    return LinePlot(title=title, x="images_seen", y=list(figures), title_x="images seen", title_y=unit)


def _section(name: str, panels: list[Any]) -> Section:
    from wandb_workspaces.workspaces import Section

    return Section(name=name, panels=panels, is_open=True)


if __name__ == "__main__":
    exit_cleanly(main)
