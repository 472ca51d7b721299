"""Which processes below a worker are ended, and which are the agent's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.harness import until
from worker.children import Spared, end_descendants, kill_descendants

SLEEP = shutil.which("sleep") or "/bin/sleep"

# A parent of the test's own, so that nothing else of the test's process is in question.
PARENT = """
import subprocess, sys
from pathlib import Path
from worker.children import Spared, become_subreaper, end_descendants, kill_descendants

become_subreaper()
agent = subprocess.Popen([sys.argv[1], sys.argv[2]])
print(agent.pid, flush=True)
for line in sys.stdin:
    verb, folder = line.split()
    spared = [Spared(agent.pid, Path(folder))] if folder != "-" else []
    if verb == "end":
        print(end_descendants(10.0, spared), flush=True)
    else:
        kill_descendants(spared)
        print("killed", flush=True)
"""


class Tree:
    """A parent with an agent below it, which starts a helper and a command."""

    def __init__(self, folder: Path) -> None:
        self.own = folder / "agent"
        self.own.mkdir()
        for name in ("bash", "sleep"):
            shutil.copy2(Path(shutil.which(name) or name).resolve(), self.own / name)
        self.helper, self.command, self.orphan = (folder / n for n in ("helper", "cmd", "orphan"))
        os.mkfifo(folder / "fifo")  # which nobody writes to
        script = (
            f'"{self.own}/sleep" 300 & echo $! > "{self.helper}"\n'
            f'(setsid {SLEEP} 300 & echo $! > "{self.orphan}")\n'
            f'{SLEEP} 300 & echo $! > "{self.command}"\n'
            f'exec 3<> "{folder}/fifo"; read -u 3\n'
        )
        path = folder / "script"
        path.write_text(script)
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(self.own / "bash"), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.parent.stdout is not None
        self.agent = int(self.parent.stdout.readline())
        for path in (self.helper, self.command, self.orphan):
            until(lambda path=path: path.exists() and path.read_text().strip(), f"for {path}")

    def tell(self, verb: str, folder: Path | str) -> str:
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.parent.stdin.write(f"{verb} {folder}\n")
        self.parent.stdin.flush()
        return self.parent.stdout.readline().strip()

    def runs(self, path: Path) -> bool:
        return runs(int(path.read_text()))


def runs(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    if made.parent.poll() is None:
        made.tell("end", "-")
    made.parent.communicate(timeout=20)


@pytest.mark.parametrize("verb", ["end", "kill"])
def test_an_agent_and_its_helpers_are_spared(tree: Tree, verb: str) -> None:
    tree.tell(verb, tree.own)
    until(lambda: not (tree.runs(tree.command) or tree.runs(tree.orphan)), "for the commands")
    assert runs(tree.agent)
    assert tree.runs(tree.helper)


def test_of_a_single_program_only_what_runs_it_is_a_helper(tree: Tree) -> None:
    assert tree.tell("end", tree.own / "bash") == "True"
    assert runs(tree.agent)
    assert not tree.runs(tree.helper)  # another program of the same folder


def test_without_anything_to_spare_all_of_it_goes(tree: Tree) -> None:
    assert tree.tell("end", "-") == "True"
    assert not runs(tree.agent)
    assert not tree.runs(tree.helper)


def test_an_agent_that_is_gone_spares_nothing() -> None:
    gone = Spared(2**22 - 1, Path("/nowhere"))
    child = subprocess.Popen([SLEEP, "300"])
    try:
        kill_descendants([gone])
        assert child.wait(20) == -9
        assert end_descendants(5.0, [gone])
    finally:
        child.kill()
