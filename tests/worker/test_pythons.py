"""Worker and attendant under the other Pythons that this machine has, the oldest and the newest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.remote.harness import (
    FILES,
    JOB,
    SWARM,
    Controller,
    append,
    attendant,
    gone,
    on_lab,
    outbox,
)
from tests.worker.harness import Worker, block
from worker.bundle import build


def pythons() -> list[str]:
    """One path for each version from 3.9 on: those on the path, and pyenv's."""
    found = {sys.version_info[:2]: sys.executable}
    named = [shutil.which(f"python3.{minor}") for minor in range(9, 20)]
    if shutil.which("pyenv"):
        roots = subprocess.run(["pyenv", "root"], check=True, capture_output=True, text=True)
        named += map(str, Path(roots.stdout.strip(), "versions").glob("3.*/bin/python"))
    for path in filter(None, named):
        program = "import sys; print(*sys.version_info[:2])"
        told = subprocess.run([path, "-c", program], check=False, capture_output=True, text=True)
        if told.returncode == 0:
            major, minor = map(int, told.stdout.split())
            found.setdefault((major, minor), path)
    versions = sorted(version for version in found if version >= (3, 9))
    return [found[version] for version in dict.fromkeys((versions[0], versions[-1]))]


@pytest.mark.parametrize("python", pythons())
def test_a_turn(python: str, make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    worker = make_worker()
    worker.argv = (python, "-I", "-S", str(build(tmp_path / "bundle")))
    worker.start()
    assert worker.ask(block({"say": "hello"}))["answer"] == "hello"
    assert worker.ask(block({"run": "echo x > file"}))["status"] == "completed"


@pytest.mark.parametrize("python", pythons())
def test_an_attendant(python: str, tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        append(outbox(tmp_path), b"1")
        await one.hears([b"1"])
        async with one.host.lock("a", "lock") as name:
            done = await one.host.run(["cat"], effect=True, input="x", lock=name)
        assert done.out == "x"
        assert (await one.host.run(["sleep", "60"], effect=False, seconds=0.2)).timed_out
        await one.host.deliver(SWARM, JOB, 0, {"injection_id": "u"}, secrets={"a": "b"})
        await one.host.archive(SWARM, tmp_path / "archives")
        await one.host.remove(SWARM)
        assert await one.host.jobs(SWARM) == []
        pid = await attendant(one)
        one.shell.cut()
        await gone(pid)

    on_lab(tmp_path, scenario, python=python)
