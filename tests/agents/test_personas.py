"""Real agents with a persona: the model is told, skills can be read, raw traffic has no key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.drivers import Claude, Codex, Driver
from tests.agents.no_network import NoNetwork
from tests.worker.harness import Worker

INSTRUCTIONS = "# How agents work here\n\nYou are the walrus of this test.\n"
SKILLS = {"tusks/SKILL.md": "---\nname: tusks\ndescription: Polish.\n---\nUse wax number 4711.\n"}


@pytest.fixture(params=[Codex, Claude], ids=["codex", "claude"])
def driver(
    request: pytest.FixtureRequest, tmp_path: Path, no_network: NoNetwork
) -> Iterator[Driver]:
    make: Callable[[Path, NoNetwork], Driver] = request.param
    with make(tmp_path, no_network) as made:
        yield made


def with_persona(driver: Driver, **env: str) -> Worker:
    worker = driver.make("p", approvalPolicy="never", sandboxMode="danger-full-access")
    worker.config["persona"] = {"instructions": INSTRUCTIONS, "skills": SKILLS}
    (worker.base / "worker.json").write_text(json.dumps(worker.config))
    worker.env = {**worker.env, **env}
    return worker.start()


def test_the_model_is_told_and_the_skill_can_be_read(driver: Driver) -> None:
    worker = with_persona(driver, CODESWARM_CAPTURE_ALL_SESSION="1")
    read = "cat .agents/skills/tusks/SKILL.md .claude/skills/tusks/SKILL.md"
    injection = worker.prompt(driver.prompt({"run": read}, {"say": "Polished."}))
    assert worker.outcome(injection) == {"status": "completed", "answer": "Polished."}
    first = json.dumps(driver.server.asked()[0].body)  # type: ignore[attr-defined]
    assert "You are the walrus of this test." in first
    (done,) = worker.events("command_completed", injection)
    assert done["data"]["output"].count("Use wax number 4711.") == 2
    traced = [e["data"] for e in worker.events("session_trace", injection)]
    assert {one["direction"] for one in traced} == {"->", "<-"}
    assert any("Polished." in one["text"] for one in traced)
    keys = [value for name, value in worker.secrets.items() if "KEY" in name]  # type: ignore[attr-defined]
    assert keys and not [key for key in keys if len(key) >= 8 and key in worker.outbox.read_text()]


def test_without_the_variable_there_is_no_raw_traffic(driver: Driver) -> None:
    worker = with_persona(driver)
    worker.outcome(worker.prompt(driver.prompt({"say": "Done here."})))
    assert worker.count("session_trace") == 0
