"""A command that is killed since its job's memory is used up: it is not the task's failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.worker.harness import Repository, Worker, block, until
from worker.oom import kills

MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.mark.parametrize(
    ("membership", "file", "text"),
    [
        ("4:cpu,memory:/slurm/job_1\n0::/\n", "memory/slurm/job_1/memory.oom_control", "x 0\n"),
        ("0::/slurm/job_1\n", "slurm/job_1/memory.events", "low 0\noom 4\n"),
        ("1:name=systemd:/\n0::/a\n", "unified/a/memory.events", ""),
        ("4:memory:/of/the/host\n", "memory/memory.oom_control", "under_oom 0\n"),
        ("0::/../../of/the/host\n", "memory.events", ""),
    ],
)
def test_the_count_is_found(tmp_path: Path, membership: str, file: str, text: str) -> None:
    (tmp_path / "self").write_text(membership)
    assert kills(tmp_path / "self", tmp_path) == 0
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}oom_kill 3\n")
    assert kills(tmp_path / "self", tmp_path) == 3
    path.write_text(f"{text}oom_kill\n")
    assert kills(tmp_path / "self", tmp_path) == 0
    assert kills(tmp_path / "gone", tmp_path) == 0


@pytest.fixture
def small() -> Iterator[Path]:
    """A cgroup with 96 MiB."""
    group = MEMORY / f"codeswarm-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(96 << 20))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory cgroup of version 1 can be made here: {error}")
    yield group
    until(lambda: not (group / "cgroup.procs").read_text(), "its processes to go")
    group.rmdir()


def test_the_task_is_not_to_blame(
    make_worker: Callable[..., Worker], remote: Repository, small: Path
) -> None:
    worker = make_worker(pollSeconds=0.05)
    into = f'import os; open("{small}/cgroup.procs", "w").write(str(os.getpid()))'
    worker.argv = (sys.executable, "-c", f"{into}; from worker.__main__ import run; run()")
    worker.start()
    greedy = f"{sys.executable} -c 'x = bytearray(512 << 20)'"
    worker.write(remote.work("u.1", block({"run": greedy})))
    done = worker.outcome("u.1")
    assert done["error"]["class"] == "out_of_memory", done
    assert "--mem" in done["error"]["message"] and "exit code" in done["error"]["message"]
    worker.write(remote.work("u.2", block({"run": "false"}), attempt=2))
    assert worker.outcome("u.2")["error"]["class"] == "task"
    worker.end()
