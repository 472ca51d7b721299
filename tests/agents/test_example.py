"""examples/agents from its own script: a planner, Codex and Claude Code, with scripted models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.agents import installed, script
from tests.agents.anthropic_server import AnthropicServer
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

EXAMPLES = installed.ROOT / "examples"
LIBRARY = "def to_roman(number):\n    return {1: 'I', 5: 'V'}[number]\n"
TESTS = (
    "import unittest\nfrom roman.numerals import to_roman\n\n\nclass One(unittest.TestCase):\n"
    "    def test(self):\n        self.assertEqual(to_roman(5), 'V')\n"
)


def by_python(path: str, content: str) -> str:
    """A command that writes a file with any content."""
    code = f"import pathlib; p = pathlib.Path({path!r}); p.parent.mkdir(exist_ok=True); "
    return f"python3 -c {json.dumps(code + f'p.write_text({content!r})')}"


def task(name: str, files: dict[str, str], **more: Any) -> dict[str, Any]:
    """A task of the plan, with what the model does in it."""
    replies = [{"run": by_python(path, content)} for path, content in files.items()]
    done = {"say": f"It is written.\n\n{script.report(name)}"}
    return {
        "task_id": name,
        "title": name,
        "prompt": script.prompt(*replies, {"run": "true", "escalate": "to be asked"}, done),
        "acceptance_criteria": ["it is there"],
        "depends_on": [],
        "owned_paths": sorted(files),
        **more,
    }


def specification() -> str:
    """What the planner is asked, and answers."""
    tasks = [
        task("library", {"roman/numerals.py": LIBRARY, "tests/test_numerals.py": TESTS}),
        task("page", {"docs/numerals.md": "# Numerals\n"}),
    ]
    plan = "TASK_GRAPH_JSON\n" + json.dumps({"tasks": tasks})
    return script.prompt({"run": "ls"}, {"say": plan}, before="# Roman numerals")


def test_a_planner_codex_and_claude_do_a_project(
    tmp_path: Path, openai: OpenAIServer, anthropic: AnthropicServer, no_network: NoNetwork
) -> None:
    for name in ("agents", "personas"):
        shutil.copytree(EXAMPLES / name, tmp_path / "examples" / name)
    (tmp_path / "examples/agents/specification.md").write_text(specification())
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    path = [str(Path(sys.executable).parent), str(installed.codex().parent), os.environ["PATH"]]
    env = {
        **no_network.env,
        **anthropic.env,
        "PATH": ":".join(path),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": "sk-scripted-0123456789abcdef",
        "OPENAI_BASE_URL": openai.base_url,
        "CODESWARM_AGENTS_DIR": str(work),
        "CODESWARM_AGENTS_TIMEOUT": "150",
    }
    own = {**env, "CODESWARM_HOME": str(work / "home")}
    ended = threading.Event()
    person = threading.Thread(target=approve, args=(own, ended))
    person.start()
    try:
        done = subprocess.run(
            ["sh", str(tmp_path / "examples/agents/run.sh")],
            env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=220, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + log_of(work)
    finally:
        ended.set()
        person.join()
        for words in (["stop-all", "-y", "--force"], ["down"]):
            subprocess.run(["codeswarm", *words], env=own, capture_output=True, check=False)
    for name in ("library", "page"):
        assert f"{name} waits for approval roman.{name}.1." in done.stdout
    assert "project/roman complete (2/2)" in done.stdout
    for name in ("docs/numerals.md", "roman/numerals.py", "tests/test_numerals.py"):
        assert name in done.stdout.splitlines()
    begun = [line.split()[-1] for line in done.stdout.splitlines() if " started on " in line]
    assert {worker.partition("/")[0] for worker in begun} >= {"planners", "codex", "claude"}
    assert openai.asked() and anthropic.asked()
    rows = [line for line in done.stdout.splitlines() if line.startswith("project.codeswarm.dev")]
    assert "$" in rows[-1] and "unpriced" not in rows[-1]


def approve(env: dict[str, str], ended: threading.Event) -> None:
    """Somebody who says yes to whatever is asked, until the end."""
    answered: set[str] = set()
    while not ended.wait(1.0):
        if not (Path(env["CODESWARM_HOME"]) / "state.db").exists():
            continue
        listed = subprocess.run(
            ["codeswarm", "get", "approvals", "-o", "name"],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        for name in set(listed.stdout.split()) - answered:
            answered.add(name)
            subprocess.run(
                ["codeswarm", "approve", name.rpartition("/")[2]],
                env=env, capture_output=True, check=False,
            )  # fmt: skip


def log_of(work: Path) -> str:
    """The end of the controller's log."""
    log = work / "home" / "logs" / "controller.log"
    return log.read_text()[-3000:] if log.exists() else ""
