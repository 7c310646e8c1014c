"""A real SLURM cluster of two nodes on this host, of processes that this user starts and ends."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.running import ROOT, free_port

# Names that resolve everywhere without a line in /etc/hosts. Both nodes share the host's network.
NODES = ("127.0.0.1", "127.0.0.2")
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "COMPLETING", "REQUEUED")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
# A requeued job waits for as long as a credential is good; less than 5 seconds means 120.
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MailProg=/bin/true
MpiDefault=none
# Nothing that needs cgroups or root.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
# A node is given up after seconds, not minutes.
SlurmctldTimeout=10
SlurmdTimeout=8
KillWait=5
CompleteWait=0
BatchStartTimeout=10
MessageTimeout=5
UnkillableStepTimeout=20
TCPTimeout=2
{nodes}
PartitionName=lab Nodes={all_nodes} Default=YES MaxTime=INFINITE State=UP
"""


def install() -> str | None:
    """Sees to it that SLURM is installed; why it is not, or None."""
    needed = ("slurmctld", "slurmd", "sbatch", "scontrol")
    if all(shutil.which(name, path=SEARCH_PATH) for name in needed):
        return None
    if not shutil.which("apt-get"):
        return "SLURM is not installed, and there is no apt-get to install it with"
    rights = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    silent = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *PACKAGES]):
        with contextlib.suppress(FileNotFoundError):
            subprocess.run([*rights, "apt-get", *command], env=silent, capture_output=True, check=False)
    missing = [name for name in needed if not shutil.which(name, path=SEARCH_PATH)]
    return f"SLURM is not installed, and apt-get could not install {', '.join(missing)}" if missing else None


def _version() -> tuple[int, int]:
    """SLURM's, such as (22, 5)."""
    told = subprocess.run(
        ["slurmd", "-V"], env={"PATH": SEARCH_PATH}, capture_output=True, text=True, check=True
    ).stdout
    major, minor = told.split()[-1].split(".")[:2]
    return int(major), int(minor)


def _has_loaded(pid: int, library: str) -> bool:
    with contextlib.suppress(OSError):
        return library in Path(f"/proc/{pid}/maps").read_text()
    return False


class CannotStart(Exception):
    """A daemon does not run on this machine; its reason."""


class Cluster:
    """slurmctld and two slurmd, their files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        foreign = ("SLURM", "SBATCH", "WANDB_", "TORCHELASTIC_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._environment |= {"SLURM_CONF": str(self.configuration), "PATH": SEARCH_PATH}
        # What jobs inherit: these tests' Python, and ranks that compute alike wherever they are.
        self._environment |= {"VENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    def start(self) -> None:
        """Starts all daemons and waits until both nodes can take jobs."""
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.configuration.write_text(self._configuration_text())
        if _version() >= (24, 5):  # older ones need no cgroups for this configuration, and do not know the word
            (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        self._start_daemon("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        self.wait_until(
            lambda: bool(self._broken()) or self.idle_nodes() == set(NODES), "both nodes are idle", timeout=30
        )
        if reason := self._broken():
            raise CannotStart(reason)

    def _broken(self) -> str | None:
        """The last word of a daemon that has ended, if one has."""
        for name, daemon in self._daemons.items():
            if daemon.poll() is not None:
                words = (self.folder / f"{name}.out").read_text(errors="replace").strip()
                return f"SLURM's daemon {name} ends: {words.rpartition(chr(10))[2]}"
        return None

    def _configuration_text(self) -> str:
        nodes = [
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs=16 State=UNKNOWN"
            for node in NODES
        ]
        return CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=free_port(),
            user=getpass.getuser(),
            folder=self.folder,
            nodes="\n".join(nodes),
            all_nodes=",".join(NODES),
        )

    def start_node(self, node: str) -> None:
        """Switches a node on; it takes jobs a little later."""
        self._start_daemon(node, "slurmd", "-D", "-N", node)

    def _start_daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self._environment | {"DAEMON_OF": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def clear(self) -> None:
        """Ends every job and switches every node on again."""
        for node in NODES:
            if self._daemons[node].poll() is not None:
                self.start_node(node)
        self.call("scancel", "--me")
        self.wait_until(lambda: not self.call("squeue", "-h"), "no job is left", timeout=30)
        self.wait_until(lambda: self.idle_nodes() == set(NODES), "both nodes are idle", timeout=30)

    def stop(self) -> None:
        """Ends every daemon; no process is left."""
        for name in reversed(self._daemons):
            self._daemons[name].terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=5)
        self._kill(lambda environment: True)
        for daemon in self._daemons.values():
            daemon.wait()

    def cut_power(self, node: str) -> None:
        """Ends everything that runs on a node at once, the daemon too."""
        self._kill(lambda environment: bool({f"SLURMD_NODENAME={node}", f"DAEMON_OF={node}"} & environment))
        self._daemons[node].wait()

    def _kill(self, chosen: Callable[[set[str]], bool]) -> None:
        for pid, environment in self.processes():
            if chosen(environment):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def freeze_ranks(self) -> None:
        """Stops the training where it is; SLURM wakes processes before it signals them."""
        for pid, environment in self.processes():
            if any(variable.startswith("RANK=") for variable in environment):
                os.kill(pid, signal.SIGSTOP)

    def processes(self) -> Iterator[tuple[int, set[str]]]:
        """Every process of this cluster, known by the configuration in its environment."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                environment = set(path.read_text(errors="replace").split("\0"))
                if f"SLURM_CONF={self.configuration}" in environment:
                    yield int(path.parent.name), environment

    def nodes_that_load_torch(self, step: str) -> set[str]:
        """Nodes where the first program of a step is past its start.

        SLURM drops signals to a step that it has told of in squeue, but whose programs it is only starting.
        """
        job, _, number = step.partition(".")
        return {
            node
            for pid, environment in self.processes()
            for node in NODES
            if {f"SLURM_JOB_ID={job}", f"SLURM_STEP_ID={number}", f"SLURMD_NODENAME={node}"} <= environment
            and _has_loaded(pid, "libtorch")
        }

    def call(self, *command: object) -> str:
        """What one of SLURM's commands answers."""
        result = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result
        return result.stdout.strip()

    def idle_nodes(self) -> set[str]:
        """Names of the nodes that can take a job."""
        return set(self.call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Waits for something that the cluster brings about."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"waited {timeout:.0f} seconds in vain until {what}; see {self.folder}"
            time.sleep(0.1)

    def submit(self, log: Path, *script: object, options: tuple[str, ...] = ()) -> Job:
        """`sbatch`, from the checkout's root, of a script with its arguments."""
        return Job(self, self.call("sbatch", "--parsable", f"--output={log}", *options, *script), log)


class Job:
    """A job on the cluster."""

    def __init__(self, cluster: Cluster, number: str, log_file: Path) -> None:
        self.cluster = cluster
        self.number = number
        self.log_file = log_file

    def field(self, name: str) -> str:
        """A field of `scontrol show job`."""
        words = self.cluster.call("scontrol", "--oneliner", "show", "job", self.number).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    @property
    def restarts(self) -> int:
        """How often it was queued again."""
        return int(self.field("Restarts"))

    def log(self) -> str:
        """What it has written, all starts together."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def last_line(self) -> str:
        """The last line of the log."""
        return self.log().rstrip().rpartition("\n")[2]

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
        """Waits for something that the running job brings about."""

        def reached() -> bool:
            if condition():
                return True
            assert self.field("JobState") in UNFINISHED, f"ended early:\n{self.log()}"
            return False

        self.cluster.wait_until(reached, f"{what}:\n{self.log()}", timeout)

    def wait(self, timeout: float = 150) -> str:
        """Waits for its end, over all its starts; the state it ended in."""
        self.cluster.wait_until(lambda: self.field("JobState") not in UNFINISHED, f"job {self.number} ends", timeout)
        return self.field("JobState")

    def seconds_running(self) -> int:
        """Since its last start."""
        hours, minutes, seconds = map(int, self.field("RunTime").split(":"))
        return (hours * 60 + minutes) * 60 + seconds

    def limit_minutes(self, minutes: int) -> None:
        """Sets the time that each of its starts may take."""
        self.cluster.call("scontrol", "update", f"JobId={self.number}", f"TimeLimit={minutes}")

    def signal(self, name: str) -> None:
        """Sends a signal to the ranks and what started them, as --signal does before the time limit."""
        self.cluster.call("scancel", f"--signal={name}", self.number)
