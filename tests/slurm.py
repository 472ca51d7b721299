"""A real Slurm on loopback: its own munged, slurmctld and a slurmd for each virtual node.

Everything lives in one folder and in processes that are our children; nothing under ``/etc`` is
touched: clients find the cluster by ``SLURM_CONF``.  All nodes are this machine, told apart by
``SLURMD_NODENAME``.  Slow faults have quick ways: ``expire``, ``fail_node``.  Where the kernel's
freezer can be had, jobs are tracked by it (``proctrack/cgroup``), as on real clusters: all that a
job left behind ends with it.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
DEADLINE = 30.0
PORTS = range(18000, 31000)
"""Below the ports that the kernel gives out by itself."""
SBIN = "/usr/sbin:/sbin"
FREEZER = Path("/sys/fs/cgroup/freezer")
CGROUPS = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"

CONFIG = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/log/slurmctld
SlurmdLogFile={root}/log/%n
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0
ReturnToService=2
KillWait=5
MessageTimeout=5
SlurmdTimeout=6
SlurmctldTimeout=10
MinJobAge=300
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
EnforcePartLimits=NO
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={first} MaxTime=10 State=UP
PartitionName=closed Nodes={first} AllowAccounts=others AllowQos=others State=UP
{extra}
"""


def missing() -> list[str]:
    """Programs of Slurm that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def require() -> None:
    """Skip where Slurm is not installed; in CI that is a failure."""
    lacking = missing()
    if not lacking and os.geteuid() == 0:
        return
    why = f"not installed: {', '.join(lacking)}" if lacking else "slurmd must be run as root"
    if os.environ.get("CI"):
        pytest.fail(f"no test with Slurm may be skipped in CI: {why}")
    pytest.skip(why)


@dataclass(slots=True)
class Slurm:
    """A running cluster.

    Args:
        root: its folder; short, as sockets lie in it.
        nodes: how many virtual nodes.
        cpus: processors that each claims, with 500 MB of memory each.
        extra: further lines of ``slurm.conf``.
        overrides: lines of ``slurm.conf`` that differ, by name.
    """

    root: Path
    nodes: int = 4
    cpus: int = 8
    extra: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: secrets.token_hex(2))
    """What the nodes' names begin with: cgroups are named after them."""
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until all nodes are idle."""
        for name in ("munge", "state", "spool", "log"):
            (self.root / name).mkdir(mode=0o755)
        for name in self.names:
            (self.root / "spool" / name).mkdir()
        self._write_config()
        key = self.root / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munge = self.root / "munge"
        self._spawn(
            "munged", "munged", "-F", "-f", f"--key-file={key}", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
            "--num-threads=2",
        )  # fmt: skip
        wait((munge / "socket").exists, "munged")
        self.start_ctld()
        for name in self.names:
            self.start_node(name)
        self.wait_nodes("idle")

    def _write_config(self) -> None:
        free = _ports(self.nodes + 1)
        nodes = "\n".join(
            f"NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
            f"RealMemory={500 * self.cpus}"
            for name, port in zip(self.names, free[1:], strict=True)
        )
        text = CONFIG.format(
            host=socket.gethostname().split(".")[0],
            port=free[0],
            root=self.root,
            user="root",
            nodes=nodes,
            first=self.names[0],
            tracking="cgroup" if self.tracks else "linuxproc",
            extra=self.extra,
        )
        lines = [line for line in text.splitlines() if line.split("=")[0] not in self.overrides]
        lines += [f"{name}={value}" for name, value in self.overrides.items()]
        self.conf.write_text("\n".join(lines) + "\n")
        (self.root / "cgroup.conf").write_text(CGROUPS)

    def stop(self) -> None:
        """End all daemons and all that jobs left running."""
        for name in list(self._children):
            self._kill(name)
        for pid in _with_environment(f"SLURM_CONF={self.conf}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._holders():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.tracks:
            self._remove_cgroups()
        shutil.rmtree(self.root, ignore_errors=True)

    def _remove_cgroups(self) -> None:
        for name in self.names:
            top = FREEZER / f"slurm_{name}"
            folders = [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
            for folder in folders:
                with contextlib.suppress(OSError):  # a process in it has not been reaped yet
                    folder.rmdir()

    @property
    def conf(self) -> Path:
        """``slurm.conf``: what clients get as ``SLURM_CONF``."""
        return self.root / "slurm.conf"

    @property
    def names(self) -> list[str]:
        """Names of the nodes."""
        return [f"n{self.tag}{number:02d}" for number in range(1, self.nodes + 1)]

    @property
    def tracks(self) -> bool:
        """Whether all that a job left behind ends with it."""
        return os.access(FREEZER / "cgroup.procs", os.W_OK)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"SLURM_CONF": str(self.conf)}

    # --- daemons -----------------------------------------------------------------------------

    def start_ctld(self, *, wait_for: bool = True) -> None:
        """Start slurmctld, with the state that the last one saved."""
        self._spawn("slurmctld", "slurmctld", "-D")
        if wait_for:
            wait(lambda: self.call("scontrol", "ping", check=False).returncode == 0, "slurmctld")

    def stop_ctld(self) -> None:
        """End slurmctld in order: it saves its state."""
        self._end("slurmctld", signal.SIGTERM)

    def kill_ctld(self) -> None:
        """``kill -9``: what was not saved yet is forgotten."""
        self._kill("slurmctld")

    def restart_ctld(self) -> None:
        """End slurmctld in order and start it again."""
        self.stop_ctld()
        self.start_ctld()

    def start_node(self, name: str) -> None:
        """Start a node's slurmd."""
        if name not in self._children:
            self._spawn(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """The node loses power: slurmd, its job steps and all their processes."""
        self._kill(name)
        until = time.monotonic() + DEADLINE
        while pids := self.processes_of(name):
            assert time.monotonic() < until
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def processes_of(self, name: str) -> set[int]:
        """Everything that runs on a node for jobs."""
        mine = _with_environment(f"SLURM_CONF={self.conf}", f"SLURMD_NODENAME={name}")
        daemons = {child.pid for child in self._children.values()}
        return (mine | self._holders(name)) - daemons

    def _holders(self, name: str = "") -> set[int]:
        """slurmstepd wipes its environment: it is known by the log that it holds open."""
        found = set()
        for pid, entry in _processes():
            with contextlib.suppress(OSError):
                for handle in (entry / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        target = handle.readlink()
                        if target.parent == self.root / "log" and target.name in (
                            {name} if name else set(self.names)
                        ):
                            found.add(pid)
        return found

    def _spawn(self, key: str, *argv: str) -> None:
        log = os.open(
            self.root / "log" / f"{key}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        program = shutil.which(argv[0], path=_path())
        assert program is not None
        try:
            self._children[key] = subprocess.Popen(
                [program, *argv[1:]],
                env={"PATH": _path(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _end(self, key: str, signum: int) -> None:
        child = self._children.pop(key, None)
        if child is not None:
            child.send_signal(signum)
            child.wait(DEADLINE)

    def _kill(self, key: str) -> None:
        self._end(key, signal.SIGKILL)

    # --- as an administrator -----------------------------------------------------------------

    def call(
        self, *argv: str, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands against this cluster."""
        return subprocess.run(
            argv,
            cwd=self.root,  # where sbatch leaves output that nobody gave a name
            env={"PATH": _path(), "HOME": "/", **self.environment},
            input=input,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=check,
        )

    def set_node(self, name: str, state: str, reason: str = "test") -> None:
        """``drain``, ``down``, ``resume``, ..."""
        self.call("scontrol", "update", f"NodeName={name}", f"State={state}", f"Reason={reason}")

    def fail_node(self, name: str) -> None:
        """What a dead node comes to, at once: its jobs end as NODE_FAIL."""
        self.set_node(name, "down")

    def mend_node(self, name: str) -> None:
        """Let a node have jobs again; one that has come back by itself is fine."""
        self.call("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)

    def set_partition(self, name: str, state: str) -> None:
        """``UP``, ``DOWN``, ``DRAIN``, ``INACTIVE``."""
        self.call("scontrol", "update", f"PartitionName={name}", f"State={state}")

    def expire(self, job: int | str) -> None:
        """The job's time limit is now: it ends at slurmctld's next look, within 30 s."""
        self.call("scontrol", "update", f"JobId={job}", "EndTime=now+1")

    def cancel(self, job: int | str) -> None:
        """As an administrator would."""
        self.call("scancel", str(job))

    def update(self, job: int | str, *settings: str) -> None:
        """``scontrol update`` of a job."""
        self.call("scontrol", "update", f"JobId={job}", *settings)

    def suspend(self, job: int | str) -> None:
        """Stop all processes of a job."""
        self.call("scontrol", "suspend", str(job))

    def resume(self, job: int | str) -> None:
        """Let a suspended job go on."""
        self.call("scontrol", "resume", str(job))

    def requeue(self, job: int | str) -> None:
        """Put a job back into the queue; an administrator may, whatever its owner asked for."""
        self.update(job, "Requeue=1")
        self.call("scontrol", "requeue", str(job))

    def jobs(self) -> list[tuple[str, str, str]]:
        """Id, name and state of all jobs that slurmctld remembers."""
        out = self.call("squeue", "-h", "-r", "-t", "all", "-o", "%A|%j|%T").stdout
        rows = (line.split("|") for line in out.splitlines())
        return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]

    def ids(self, name: str, *states: str) -> list[str]:
        """Ids of the jobs of a name, in these states or all, in order."""
        found = {int(id) for id, job, state in self.jobs() if job == name and state in states}
        if not states:
            found = {int(id) for id, job, _ in self.jobs() if job == name}
        return [str(id) for id in sorted(found)]

    def wait_nodes(self, state: str) -> None:
        """Wait until all nodes are in a state."""

        def reached() -> bool:
            out = self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).stdout
            return out.split() == [state] * self.nodes

        wait(reached, f"all nodes to be {state}")

    def kill_jobs(self) -> None:
        """Have all jobs end at once; does not wait for it."""
        self.call("scancel", "--signal=KILL", "--full", "--user=root", check=False)
        self.call("scancel", "--user=root", check=False)

    def clear(self) -> None:
        """Back to a cluster of idle nodes without jobs; for tests that share it."""
        if "slurmctld" not in self._children:
            self.start_ctld()
        for name in self.names:
            self.start_node(name)
        self.kill_jobs()
        for name in ("main", "short", "closed"):
            self.set_partition(name, "UP")

        def ended() -> bool:
            return not self.call("squeue", "-h", "-o", "%A", check=False).stdout.split()

        wait(ended, "all jobs to end")
        for name in self.names:
            self.mend_node(name)
        self.wait_nodes("idle")


@contextmanager
def running(nodes: int = 4, *, cpus: int = 8, extra: str = "", **overrides: str) -> Iterator[Slurm]:
    """A cluster of our own, gone at the end."""
    require()
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    root.chmod(0o755)
    cluster = Slurm(root, nodes, cpus, extra, overrides)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Wait for a condition; fails with ``what`` was waited for."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.03)


def _path() -> str:
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SBIN}"


def _ports(count: int) -> list[int]:
    """Free ports; drawn at random, since other test processes draw too."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.choice(PORTS)
            sock = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                found.append(port)
    return found


def _processes() -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name), entry


def _with_environment(*wanted: str) -> set[int]:
    """Living processes whose environment holds all of these."""
    found = set()
    for pid, entry in _processes():
        with contextlib.suppress(OSError, IndexError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and all(one.encode() in environment for one in wanted):
                found.add(pid)
    return found
