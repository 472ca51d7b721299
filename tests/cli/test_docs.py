"""What the documentation shows works."""

from __future__ import annotations

import re
from pathlib import Path

from worker.runtimes.script import _CHECKS, steps_of

MOCK = Path(__file__).parents[2] / "docs" / "mock.md"


def test_every_step_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+):", MOCK.read_text(), re.MULTILINE))
    assert described == set(_CHECKS)


def test_the_scripts_shown_are_right() -> None:
    text = MOCK.read_text()
    blocks = re.findall(r"^ *```(?:yaml|mock)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert steps_of(f"```mock\n{block}\n```")
