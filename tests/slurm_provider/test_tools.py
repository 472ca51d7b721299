"""Tools of agents that a swarm has installed: on the PATH of its workers on the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.base import ProviderError
from tests.providers.harness import new_swarm, request, run, session, until
from tests.remote.test_tools import NPM
from tests.slurm import Slurm
from tests.slurm_provider.harness import SlurmHarness
from tests.sshd import Sshd


def test_installed_once_and_first_on_the_path(
    slurm: Slurm, slurm_login: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.remote_tools.WAIT_SECONDS", 0.5)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("npm", NPM), ("node", "#!/bin/sh\n")):
        program = programs / name
        program.write_text(text.format(log=tmp_path / "log", gate=tmp_path / "gate"))
        program.chmod(0o755)
    more = {
        "tools": {"install": True, "codexVersion": "1.2.3"},
        "setupCommands": [f'export PATH="{programs}:$PATH"'],
    }
    harness = SlurmHarness(slurm, slurm_login, tmp_path.resolve() / "shared", more)
    (tmp_path / "gate").touch()

    async def scenario() -> None:
        swarm = new_swarm(harness)
        requests = [request(swarm, index=index) for index in range(2)]
        async with session(harness) as one:

            async def launched() -> bool:
                try:
                    await one.provider.launch(requests)
                    return True
                except ProviderError as error:
                    assert error.reason == "ToolsInstalling"
                    (tmp_path / "gate").unlink(missing_ok=True)
                    return False

            await until(launched, "the launch")
            for wanted in requests:
                one.provider.follow(swarm, wanted.job, wanted.index, 0)
                await one.ready(wanted.job)
            for wanted in requests:
                paths = {_path(pid) for pid in harness.processes(wanted.job)}
                assert {Path(path.split(":")[0]).parent.parent for path in paths} == {
                    harness.root / "tools"
                }

    try:
        run(scenario)
        assert len((tmp_path / "log").read_text().splitlines()) == 1
    finally:
        slurm.kill_jobs()
        harness.end()


def _path(pid: int) -> str:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (found,) = [value[5:].decode() for value in environment if value.startswith(b"PATH=")]
    return found
