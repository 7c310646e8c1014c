"""`sbatch slurm/train.sh` on two nodes: trains, is stopped in every way, and comes to the same end."""

from __future__ import annotations

import random
import re
from pathlib import Path

from tests.running import ROOT, assert_same_tensors, checkpoints, load_checkpoint, metric_rows, read_status
from tests.slurm.cluster import NODES, Cluster, Job
from tests.slurm.conftest import TOTAL_IMAGES

Settings = tuple[str, ...]


def start(cluster: Cluster, folder: Path, *settings: str, options: tuple[str, ...] = ()) -> tuple[Job, Path]:
    """Submits a run."""
    run, script = folder / "run", ("slurm/train.sh", *settings, "--run.dir", folder / "run")
    return cluster.submit(folder / "slurm.log", *script, options=("--nodes=2", *options)), run


def wait_for_a_random_step(job: Job, run: Path) -> None:
    """Waits until a run has gone on for up to a third of its length."""
    rows = len(metric_rows(run)) + random.randint(1, TOTAL_IMAGES // 64 // 3)
    job.wait_until(lambda: len(metric_rows(run)) >= rows, f"{rows} rows are there")


def assert_finished_as(undisturbed: Path, job: Job, run: Path) -> None:
    """The job says so, the run folder says so, and the weights are those of a run that nothing happened to."""
    assert job.wait() == "COMPLETED", job.log()
    assert read_status(run)["status"] == "done"
    assert job.last_line() == f"{run}: done at {TOTAL_IMAGES} images"
    assert_same_tensors(load_checkpoint(checkpoints(run)[-1]), load_checkpoint(checkpoints(undisturbed)[-1]))
    assert_every_image_was_seen_once(run)


def assert_every_image_was_seen_once(run: Path) -> None:
    """No row of figures is missing or there twice."""
    assert [row["images_seen"] for row in metric_rows(run)] == list(range(64, TOTAL_IMAGES + 1, 64))


def test_two_nodes_train_the_networks_that_two_ranks_of_one_node_train(
    cluster: Cluster, settings: Settings, undisturbed: Path, tmp_path: Path
) -> None:
    job, run = start(cluster, tmp_path, *settings)
    assert_finished_as(undisturbed, job, run)
    assert job.restarts == 0
    assert "on 2 rank(s) of cpu" in job.log()


def warning_of_the_script(seconds: int) -> str:
    """What slurm/train.sh asks for before its time limit, so many seconds before it."""
    (signal,) = re.findall(r"^#SBATCH --signal=(\S+)@120$", (ROOT / "slurm" / "train.sh").read_text(), re.MULTILINE)
    return f"--signal={signal}@{seconds}"


def test_a_job_out_of_time_and_then_queued_again_by_hand_ends_in_the_same_weights(
    cluster: Cluster, settings: Settings, undisturbed: Path, tmp_path: Path
) -> None:
    job, run = start(cluster, tmp_path, *settings, options=(warning_of_the_script(seconds=59),))
    wait_for_a_random_step(job, run)
    cluster.freeze_ranks()
    # SLURM looks at limits every half minute: if less is left, it ends the job without having warned it.
    job.limit_minutes(1 + (job.seconds_running() + 32) // 60)
    job.wait_until(lambda: job.restarts == 1, "it queues itself again")
    job.limit_minutes(10)
    stopped = read_status(run)
    assert stopped["status"] == "preempted"
    assert checkpoints(run)[-1].stem == f"{stopped['images_seen']:09d}"
    assert f"{run}: stopped by SIGUSR2 at {stopped['images_seen']} images; queued again\n" in job.log()

    wait_for_a_random_step(job, run)
    assert f"{stopped['images_seen']} images were seen before" in job.log()
    cluster.call("scontrol", "requeue", job.number)
    assert_finished_as(undisturbed, job, run)
    assert job.restarts == 2


def test_a_node_that_loses_power_and_comes_back_costs_the_steps_since_the_last_checkpoint(
    cluster: Cluster, settings: Settings, undisturbed: Path, tmp_path: Path
) -> None:
    job, run = start(cluster, tmp_path, *settings)
    wait_for_a_random_step(job, run)
    cluster.cut_power(NODES[0])  # the one with the batch script
    job.wait_until(lambda: job.restarts == 1, "SLURM queues it again")
    cluster.start_node(NODES[0])
    assert_finished_as(undisturbed, job, run)


def test_a_signal_before_the_first_image_starts_the_job_again_and_scancel_ends_it(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    job, _ = start(cluster, tmp_path, *settings)
    job.wait_until(lambda: cluster.nodes_that_load_torch(f"{job.number}.0") == set(NODES), "its step has started")
    job.signal("USR2")
    job.wait_until(lambda: job.restarts == 1, "it is queued again")
    # Where one node's torchrun was killed, srun terminates the others.
    assert re.search(r"stopped by SIG(USR2|TERM) before it began; queued again \(1 of 20 without", job.log()), job.log()
    cluster.call("scancel", job.number)
    assert job.wait() == "CANCELLED"
    assert job.restarts == 1


def test_a_setting_that_does_not_exist_fails_at_once(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    job, run = start(cluster, tmp_path, *settings, "--train.learning_rate", "0.1")
    assert job.wait(timeout=60) == "FAILED"
    assert job.restarts == 0
    assert job.log().count("there is no such setting") == 1
    assert job.last_line().startswith("error: train.learning_rate: there is no such setting")
    assert not run.exists()


def test_shards_that_are_not_there_fail_the_job_before_its_ranks_start(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    job, run = start(cluster, tmp_path, *settings, "--data.shards", str(tmp_path / "nowhere"))
    assert job.wait(timeout=60) == "FAILED"
    assert job.restarts == 0
    assert job.last_line().startswith(f"error: shards on {NODES[0]}: {tmp_path / 'nowhere'}: no such folder")
    assert not run.exists()


def test_a_mistake_that_only_ranks_can_find_fails_the_job_once(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    job, run = start(cluster, tmp_path, *settings, "--data.global_batch_size", "1")
    assert job.wait(timeout=60) == "FAILED"
    assert job.restarts == 0
    assert job.log().count("error: data.global_batch_size = 1: 2 ranks need") == len(NODES)
    assert "Exited with exit code 2" in job.log()  # of torchrun
    assert job.last_line().startswith(f"error: {run}: data.global_batch_size = 1: 2 ranks need")
    assert not run.exists()


def test_ranks_that_fail_on_one_node_fail_the_job_once(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nif os.environ.get('RANK') == '1': os._exit(3)\n")
    options = (f"--export=ALL,PYTHONPATH={tmp_path},TORCHRUN_OPTIONS=--max-restarts=0",)
    job, run = start(cluster, tmp_path, *settings, options=options)
    assert job.wait(timeout=60) == "FAILED"
    assert job.restarts == 0
    assert re.search("stopped by SIGTERM|another node is gone", job.log()), job.log()  # the other one, because of this
    assert job.last_line().endswith("ended before the run began (rank 1 failed first, with status 3)")
    assert not run.exists()


def test_a_job_can_say_beforehand_whether_it_would_work(cluster: Cluster, settings: Settings, tmp_path: Path) -> None:
    script = ("slurm/train.sh", *settings, "--run.dir", tmp_path / "run")
    options = ("--nodes=2", "--export=ALL,PREFLIGHT=1")
    job = cluster.submit(tmp_path / "slurm.log", *script, options=options)
    assert job.wait() == "COMPLETED", job.log()
    assert "2 ranks of cpu: sum is right" in job.log()
    assert "all 2" in job.log()
    assert not (tmp_path / "run").exists()
