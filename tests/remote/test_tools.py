"""The agents' tools in a shared workspace: installed once, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from providers import remote_tools
from providers.base import ProviderError
from providers.remote import RemoteHost
from providers.remote_setup import Place
from providers.remote_tools import Tools, ToolsThere
from tests.remote.shells import LocalShell
from tests.ssh.hosts import until

T = TypeVar("T")

NPM = """#!/bin/sh
echo "$$ $*" >> "{log}"
while [ -e "{gate}" ]; do sleep 0.02; done
case "$*" in *broken*) echo "no such version" >&2; exit 3;; esac
while [ $# -gt 0 ]; do [ "$1" = --prefix ] && folder=$2; shift; done
mkdir -p "$folder/node_modules/.bin" "$folder/node_modules/@openai/codex/bin"
printf '#!/bin/sh\\necho a stand-in\\n' > "$folder/node_modules/@openai/codex/bin/codex.js"
chmod +x "$folder/node_modules/@openai/codex/bin/codex.js"
ln -s ../@openai/codex/bin/codex.js "$folder/node_modules/.bin/codex"
"""


class Workspace:
    """A root on a login host with an npm of its own, which tells of its calls."""

    def __init__(self, path: Path) -> None:
        self.root = path / "root"
        self.gate = path / "gate"
        self.log = path / "npm.log"
        self.bin = path / "bin"
        self.home = path / "home"
        self.env: dict[str, str] = {}
        for folder in (self.bin, self.home):
            folder.mkdir()
        for name, text in (("npm", NPM), ("node", "#!/bin/sh\n")):
            program = self.bin / name
            program.write_text(text.format(log=self.log, gate=self.gate))
            program.chmod(0o755)
        (self.home / ".bash_profile").write_text(f'PATH="{self.bin}:$PATH"\n')

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def using(self, *acts: Callable[[RemoteHost], Awaitable[T]], seconds: float = 60) -> list[T]:
        """What comes of acts at the same time, each with an attendant of its own."""

        async def one(act: Callable[[RemoteHost], Awaitable[T]]) -> T:
            shell = LocalShell(self.home, self.env)
            host = RemoteHost(shell, Place("lab", str(self.root)))
            host.start(lambda batch: None)
            try:
                return await act(host)
            finally:
                await host.close()
                await shell.close()

        async def main() -> list[T]:
            async with asyncio.timeout(seconds):
                return list(await asyncio.gather(*map(one, acts)))

        return asyncio.run(main())


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until all is there."""
    monkeypatch.setattr(remote_tools, "WAIT_SECONDS", 400.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def wanting(**tools: str) -> Callable[[RemoteHost], Awaitable[Tools]]:
    return lambda host: ToolsThere(host).have({"tools": {"install": True, **tools}})


def run(tools: Tools, *argv: str) -> str:
    path = ":".join((*tools.path, os.environ["PATH"]))
    env = {**os.environ, "PATH": path}
    done = subprocess.run(["env", *argv], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_nothing_is_installed_unless_it_is_asked_for(workspace: Workspace) -> None:
    nothing = {"tools": {"install": False, "codexVersion": "1.2.3"}}
    for parameters in ({}, nothing):
        assert workspace.using(lambda host, p=parameters: ToolsThere(host).have(p)) == [Tools()]  # type: ignore[misc]
    assert not workspace.calls()


def test_once_for_all_swarms_of_a_workspace(workspace: Workspace) -> None:
    found = workspace.using(*(wanting(codexVersion="1.2.3") for _ in range(3)))
    assert len(set(found)) == 1 and len(workspace.calls()) == 1
    assert "@openai/codex@1.2.3" in workspace.calls()[0]
    assert run(found[0], "codex") == "a stand-in"
    assert found[0].python == ""
    again = workspace.using(wanting(codexVersion="1.2.3"), wanting(codexVersion="1.2.4"))
    assert again[0] == found[0] != again[1] and len(workspace.calls()) == 2


def test_what_fails_says_why_and_leaves_nothing_half_done(workspace: Workspace) -> None:
    with pytest.raises(ProviderError) as caught:
        workspace.using(wanting(codexVersion="broken"))
    assert caught.value.reason == "ToolsFailed"
    text = str(caught.value)
    assert "exit status 3" in text and "no such version" in text and ".log" in text
    left = {path.suffix for path in (workspace.root / "tools").iterdir()}
    assert left == {".log", ".lock"}


def test_a_launch_does_not_wait_for_minutes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_tools, "WAIT_SECONDS", 0.2)
    workspace.gate.touch()

    async def launches(host: RemoteHost) -> None:
        tools = ToolsThere(host)
        wanted = {"tools": {"install": True, "codexVersion": "1.2.3"}}
        for _ in range(3):
            with pytest.raises(ProviderError) as caught:
                await tools.have(wanted)
            assert caught.value.reason == "ToolsInstalling"
        workspace.gate.unlink()
        monkeypatch.setattr(remote_tools, "WAIT_SECONDS", 30.0)
        assert (await tools.have(wanted)).path
        assert len(workspace.calls()) == 1
        await tools.close()

    workspace.using(launches)


def test_what_failed_is_not_tried_again_at_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def launches(host: RemoteHost) -> None:
        wanted = {"tools": {"install": True, "codexVersion": "broken"}}
        for pause, calls in ((30.0, 1), (0.0, 3)):
            monkeypatch.setattr(remote_tools, "FIRST_PAUSE", pause)
            tools = ToolsThere(host)
            for _ in range(2):
                with pytest.raises(ProviderError, match="no such version"):
                    await tools.have(wanted)
            assert len(workspace.calls()) == calls

    workspace.using(launches)


@pytest.mark.parametrize(
    "tools", [{}, {"nodeVersion": "22"}, {"codexVersion": "--global"}, {"claudePackage": "-r x"}]
)
def test_a_wish_that_cannot_be(workspace: Workspace, tools: dict[str, str]) -> None:
    with pytest.raises(ProviderError) as caught:
        workspace.using(wanting(**tools))
    assert caught.value.reason == "InvalidParameters"


def test_no_npm_at_all(workspace: Workspace) -> None:
    bare = workspace.home.parent / "bare"
    bare.mkdir()
    (bare / "python3").symlink_to(sys.executable)
    (bare / "sh").symlink_to("/bin/sh")
    (workspace.home / ".bash_profile").write_text(f"PATH={bare}\n")
    with pytest.raises(ProviderError) as caught:
        workspace.using(wanting(codexVersion="1.2.3"))
    assert caught.value.reason == "ToolsFailed" and "tools.nodeVersion" in str(caught.value)


def test_killed_in_the_middle(workspace: Workspace) -> None:
    """The attendant dies, then the program that it began: the next one starts anew."""
    workspace.gate.touch()

    async def cut(host: RemoteHost) -> None:
        waiting = asyncio.create_task(wanting(codexVersion="1.2.3")(host))
        await until(workspace.calls, "the call of npm")
        npm = psutil.Process(int(workspace.calls()[0].split()[0]))
        attendant = npm.parent()
        assert attendant is not None
        attendant.kill()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    workspace.using(cut)
    first = int(workspace.calls()[0].split()[0])

    async def after(host: RemoteHost) -> Tools:
        waiting = asyncio.create_task(wanting(codexVersion="1.2.3")(host))
        await asyncio.sleep(0.5)
        assert len(workspace.calls()) == 1, "two at a time: the first program holds the lock"
        psutil.Process(first).kill()
        workspace.gate.unlink()
        return await waiting

    (tools,) = workspace.using(after)
    assert run(tools, "codex") == "a stand-in" and len(workspace.calls()) == 2
    assert not list((workspace.root / "tools").glob(".*")), "what was half done is still there"


def _registries() -> dict[str, str]:
    """How this machine's user reaches package registries."""
    prefixes = ("npm_config_", "pip_", "node_extra_", "ssl_cert_", "http_proxy", "https_proxy")
    found = {k: v for k, v in os.environ.items() if k.lower().startswith(prefixes)}
    return {"npm_config_userconfig": str(Path.home() / ".npmrc"), **found}


@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_the_real_ones(tmp_path: Path) -> None:
    """Node.js, the Codex CLI and Claude Code from their registries."""
    workspace = Workspace(tmp_path)
    (workspace.home / ".bash_profile").unlink()
    workspace.env = _registries()
    wish = {
        "nodeVersion": "22",
        "codexVersion": "0.169.0",
        "claudePackage": "claude-agent-sdk==0.2.187",
    }
    (tools,) = workspace.using(wanting(**wish), seconds=380)
    assert "0.169.0" in run(tools, "codex", "--version")
    assert run(tools, "node", "--version").startswith("v22.")
    done = subprocess.run(
        [tools.python, "-I", "-c", "import claude_agent_sdk as s; print(s.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0.2.187"
    assert not workspace.calls(), "the npm of the path was used"
