"""Nobody waits, or ends, without a word: what the screen shows of ranks that wait, do not meet, or make others end."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.distributed.meeting import Meeting
from dcgan_dist.distributed.world import World
from tests.running import Finished, free_port, run_command, started, train_command, user_errors

CLOCK = r"\d\d:\d\d:\d\d"
LEFT_OVER = "unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT"
OUR_TORCHRUN = [sys.executable, "-m", "launch.torchrun"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
MISTAKE = ("--train.epochs", "many")


def place(rank: int, size: int, port: int, host: str = "127.0.0.1") -> dict[str, str]:
    """The variables by which ranks find each other."""
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": host, "MASTER_PORT": str(port)}


def on_two_ranks(what: str) -> Finished:
    return run_command([*TORCHRUN, "-m", "tests.distributed.waiting_script", what])


def with_our_torchrun(*options: object, rank: tuple[str, ...] = ("launch.rank", *MISTAKE)) -> Finished:
    return run_command([*OUR_TORCHRUN, *map(str, options), "-m", *rank])


def first_of_two_nodes(timeout_seconds: int) -> Finished:
    meeting = ("--nnodes", 2, "--node-rank", 0, "--master-port", free_port())
    return with_our_torchrun(*meeting, "--rdzv-conf", f"timeout={timeout_seconds}")


def late_rank() -> Finished:
    script = ("tests.distributed.waiting_script", "late")
    return with_our_torchrun("--nproc-per-node", 2, "--master-port", free_port(), rank=script)


def with_left_over_variables() -> str:
    """The first line of a training on one process where another job left its variables; it is ended then."""
    with started(train_command(1), place(0, 4, free_port())) as process:
        assert process.stderr
        return process.stderr.readline()


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port of this machine that another program listens on."""
    with socket.create_server(("", 0)) as holder:
        yield holder.getsockname()[1]


def root_cause(result: Finished) -> str:
    """What torchrun says at the very end about the rank that failed first."""
    _, found, last = result.stderr.rpartition("Root Cause (first observed failure):")
    assert found, result.stderr
    assert "To enable traceback see" not in result.stderr
    return last


@pytest.fixture(scope="module", autouse=True)
def waits() -> Iterator[dict[str, Future[str]]]:
    """What is on the screen in each of the cases that take longer than ten seconds; they wait beside the others."""
    with ThreadPoolExecutor(4) as pool:
        yield {
            "left over": pool.submit(with_left_over_variables),
            "node": pool.submit(lambda: first_of_two_nodes(12).stderr),
            "late": pool.submit(lambda: late_rank().stderr),
            "frozen": pool.submit(lambda: on_two_ranks("frozen").stderr),
        }


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_under_torchrun_the_last_lines_name_a_mistake() -> None:
    result = run_command([*TORCHRUN, "-m", "dcgan_dist.train", *MISTAKE])
    assert "train.epochs = many: must be a number" in root_cause(result)
    assert re.search(r"exitcode  : 2 ", root_cause(result))
    assert user_errors(result) == ["error: train.epochs = many: must be a number"]


def test_under_torchrun_the_last_lines_name_the_rank_without_memory_and_not_the_one_that_lost_it() -> None:
    last = root_cause(on_two_ranks("out_of_memory"))
    assert re.search(r"rank 1 on \S+ is out of memory .* make --data.batch_size_per_rank", last)


def test_under_torchrun_a_rank_that_it_ended_itself_is_not_the_cause() -> None:
    last = root_cause(on_two_ranks("fails"))
    assert "the disk of rank 1 is full" in last
    assert "SIGTERM" not in last


# --- how ranks do not meet --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "4"}, "RANK and MASTER_ADDR and MASTER_PORT are not set"),
        ({"RANK": "3"}, "RANK = 3 and WORLD_SIZE = 1"),
        (place(4, 4, 29500), "RANK = 4 and WORLD_SIZE = 4"),
        (place(0, 2, 29500) | {"MASTER_PORT": "http"}, "MASTER_PORT = 'http'"),
        (place(0, 2, 29500, host="nowhere.invalid"), "MASTER_ADDR = nowhere.invalid: no machine has this name"),
    ],
)
def test_variables_that_cannot_be_meant_are_named(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in place(0, 1, 1):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(words)) as told:
        World.connect(timedelta(seconds=1))
    assert LEFT_OVER in str(told.value)


@pytest.mark.parametrize(("rank", "missing"), [(0, "3 of 4 ranks"), (2, "rank 0 of 4")])
def test_ranks_that_do_not_come_are_counted(rank: int, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for name, value in place(rank, 4, port).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFailed, match=f"rank {rank} of 4 .* in vain for {missing} at 127.0.0.1:{port}"):
        World.connect(timedelta(seconds=1))


def test_where_some_have_come_the_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place(0, 4, 29500).items():
        monkeypatch.setenv(name, value)
    store = dist.HashStore()
    for rank in (0, 2):
        meeting = Meeting.at_place_of_environment(rank, 4, timedelta(seconds=0.2))
        with pytest.raises(RunFailed) as told, meeting.awaited():
            meeting.await_all(store)
    assert "2 of 4 ranks (1, 3) at 127.0.0.1:29500" in str(told.value)


def test_a_port_in_use_is_one_line_for_a_rank() -> None:
    with held_port() as port:
        result = run_command(train_command(1), env=place(0, 2, port))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert re.match(rf"error: port {port} of \S+ is in use, .*ss -ltnp.* set MASTER_PORT to another one", line)


def test_a_place_where_nodes_cannot_meet_is_one_line_for_our_torchrun() -> None:
    with held_port() as port, ThreadPoolExecutor(2) as pool:
        c10d = ("--rdzv-backend", "c10d", "--rdzv-endpoint")
        held = rf"port {port} of \S+ is in use, .* choose another with"
        cases = [
            (lambda: with_our_torchrun("--master-port", port), 2, f"{held} .*--master-port"),
            (lambda: with_our_torchrun(*c10d, f"localhost:{port}"), 2, f"{held} --rdzv-endpoint"),
            (lambda: with_our_torchrun(*c10d, "nowhere.invalid:29500"), 2, "nowhere.invalid: no .*--rdzv-endpoint"),
            (lambda: first_of_two_nodes(1), 1, "2 nodes at 127.0.0.1:.* did not meet .*--master-port"),
        ]
        results = list(pool.map(lambda case: case[0](), cases))
    for (_, status, words), result in zip(cases, results, strict=True):
        assert result.returncode == status, result
        assert re.match(f"launch.torchrun: gave up: {words}", result.stderr.splitlines()[-1]), result
        assert "Traceback" not in result.stderr


# --- how they wait ----------------------------------------------------------------------------------------------------


def test_variables_left_over_by_another_job_are_named_while_it_waits(waits: dict[str, Future[str]]) -> None:
    line = waits["left over"].result()
    assert re.match(rf"waiting for 3 of 4 ranks at 127.0.0.1:\d+ since {CLOCK}, until {CLOCK}; if no other", line)
    assert LEFT_OVER in line


def test_a_node_says_that_it_waits_for_another(waits: dict[str, Future[str]]) -> None:
    lines = [line for line in waits["node"].result().splitlines() if line.startswith("waiting")]
    assert len(lines) == 1
    assert re.match(rf"waiting for 2 nodes at 127.0.0.1:\d+ since {CLOCK}, until {CLOCK}; start the same", lines[0])


def test_a_rank_says_that_it_waits_for_another(waits: dict[str, Future[str]]) -> None:
    lines = [line for line in waits["late"].result().splitlines() if line.startswith("waiting")]
    assert len(lines) == 1
    assert re.match(rf"waiting for the other 1 of 2 ranks, as rank 0 on \S+, since {CLOCK}, until {CLOCK}", lines[0])


def test_a_rank_that_is_frozen_in_training_is_named_long_before_the_end(waits: dict[str, Future[str]]) -> None:
    lines = [line for line in waits["frozen"].result().splitlines() if "the end of a step" in line]
    assert len(lines) == 1
    assert re.search(rf"until {CLOCK}; rank 1 on \S+ gave no sign of life \(run.hang_timeout_seconds\)", lines[0])
