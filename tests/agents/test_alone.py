"""The agents work where no other host can be reached, and want to reach none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents import installed
from tests.agents.alone import NO_NAMESPACE


def test_agents_need_no_other_host(tmp_path: Path) -> None:
    installed.codex()
    command = [sys.executable, "-m", "tests.agents.alone", str(tmp_path)]
    done = subprocess.run(
        command, cwd=installed.ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    if done.returncode == NO_NAMESPACE:
        pytest.skip("the system gives no network namespace")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"mock", "codex", "claude"}
    for answer, ran, wanted in found.values():
        assert (answer, ran, wanted) == ({"status": "completed", "answer": "Done."}, True, [])
