"""Many shards by several processes, none of which outlives the command."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

from data_prep.packing.plan import Plan
from data_prep.packing.shard_writer import Record, Task, prepare_shard
from dcgan_dist.base.errors import UserError


def work(connection: Connection, task: Task, plan: Plan) -> None:
    """A worker process: takes names of tars, sends numbers of images done and then the record, or an error.

    It ends when the other end of the connection is gone, however the command ended.
    """
    # What the command has open is open here too: other workers' ends of connections, which would then never seem gone,
    # and the lock on the folder.
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command hears it too, and closes the connection
    try:
        while True:
            planned = plan.shard(connection.recv())
            connection.send(prepare_shard(task, planned, connection.send))
    except (EOFError, ConnectionError):
        return
    except UserError as error:
        connection.send(error)
    except OSError as error:
        connection.send(explain_os_error(error, task.out))


def explain_os_error(error: OSError, out: Path) -> UserError:
    """One line for a file system that refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        again = "make room and give the same command again: finished shards are kept"
        return UserError(f"{out}: no room to write ({error.strerror}); {again}")
    return UserError(f"{error.filename or out}: {error.strerror}")


def write_shards(
    task: Task, plan: Plan, workers: int, progress: AbstractContextManager[Callable[[int], None]]
) -> list[Record]:
    """All records in the order of the shards. Raises the first UserError of a worker and stops the others."""
    # In this order: processes are forked before the screen's progress starts a thread.
    with _running_workers(task, plan, min(workers, len(plan.shards))) as connections, progress as report:
        try:
            records = _hand_out(plan, connections, report)
        except (EOFError, ConnectionError):
            raise UserError(
                "a worker process was killed (out of memory?); give the same command again, with fewer --workers if "
                "need be: finished shards are kept"
            ) from None
    return [records[tar_name] for tar_name in plan.shards]


def _hand_out(plan: Plan, connections: list[Connection], report: Callable[[int], None]) -> dict[str, Record]:
    """Gives every worker a shard, and another when it is done. EOFError or ConnectionError if one dies."""
    jobs = iter(plan.shards)
    records: dict[str, Record] = {}
    for connection in connections:
        connection.send(next(jobs))
    while len(records) < len(plan.shards):
        for connection in cast(list[Connection], wait(connections)):
            message = connection.recv()
            if isinstance(message, UserError):
                raise message
            if isinstance(message, int):
                report(message)
                continue
            records[message.shard.file] = message
            if job := next(jobs, None):
                connection.send(job)
    return records


@contextlib.contextmanager
def _running_workers(task: Task, plan: Plan, count: int) -> Iterator[list[Connection]]:
    """Connections to new processes; at the end, whatever it is, they are told to stop and waited for.

    Forked: they have the plan without being sent it, and are there at once.
    """
    context = multiprocessing.get_context("fork")
    connections: list[Connection] = []
    processes = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            connections.append(ours)
            processes.append(context.Process(target=work, args=(theirs, task, plan)))
            processes[-1].start()
            theirs.close()
        yield connections
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join()
