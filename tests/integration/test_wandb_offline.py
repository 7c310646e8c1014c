"""A run that is recorded for W&B without a network, stopped and resumed twice, is one run there."""

from __future__ import annotations

from pathlib import Path

from tests.running import SMALL, metric_rows, run_train
from tests.wandb_files import logged, run_record, wandb_records

BATCH = 16
OPTIONS = (
    *SMALL,
    *("--data.global_batch_size", BATCH),
    *("--sample.num_images", 4),
    *("--sample.every_images", 4 * BATCH),
    *("--track.every_images", BATCH),
    *("--track.wandb", "offline"),
    *("--track.wandb_checkpoints", "true"),
)


def test_two_resumes_are_one_run_with_every_step_once_and_its_grids(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for steps in (4, 8, 12):
        options = ("--data.shards", shards, "--run.dir", run, "--train.total_images", steps * BATCH)
        result = run_train(1, *OPTIONS, *options)
        assert result.returncode == 0, result

    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    starts = [wandb_records(file) for file in files]
    assert len(starts) == 3
    (known,) = {run_record(records).run_id for records in starts}
    assert known == (run / "wandb" / "run_id").read_text().strip()

    steps = [step for records in starts for step in logged(records)]
    assert [step["_step"] for step in steps] == list(range(0, 12 * BATCH + 1, BATCH))
    assert [step["loss/generator"] for step in steps[1:]] == [row["loss/generator"] for row in metric_rows(run)]
    name = "samples/fixed_latents.path"
    grids = {step["images_seen"]: step[name] for step in steps if name in step}
    assert list(grids) == [0, 4 * BATCH, 8 * BATCH, 12 * BATCH]
    media = {path.name for file in files for path in file.parent.glob("files/media/images/samples/*.png")}
    assert {Path(path).name for path in grids.values()} <= media
    models = [record.artifact for records in starts for record in records if record.HasField("artifact")]
    assert [set(model.aliases) for model in models] == [{"latest", f"images-{n * BATCH}"} for n in (4, 8, 12)]
