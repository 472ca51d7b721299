"""One runtime each, so that a scenario is written once: prompts, workers, what they may lack."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from tests.agents.anthropic_server import AnthropicServer
from tests.agents.script import DEFAULT_USAGE, script
from tests.worker.harness import Worker, block

Step = dict[str, Any]


class AgentWorker(Worker):
    """A worker whose agent gets an environment, anew at each start."""

    agent_env: Mapping[str, str] = {}

    def spawn(self) -> Any:
        env = self.base / "env"
        env.write_text(json.dumps(dict(self.agent_env)))
        env.chmod(0o600)
        return super().spawn()

    def processes(self) -> list[psutil.Process]:
        """Everything below the worker."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)


class Driver:
    """A runtime; a context manager that ends what it began.

    Args:
        folder: for the workers.
    """

    name = ""
    persistent = True
    """Whether the agent has a process of its own, with a conversation that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        """In place of the developer's, whose shell profile the agents would read."""
        self.home.mkdir()
        self.ending = ExitStack()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.close()

    def env(self) -> dict[str, str]:
        """What leads the agent to its scripted model."""
        return {}

    def make(
        self, name: str = "w0", env: Mapping[str, str] | None = None, **agent: Any
    ) -> AgentWorker:
        """A worker that is not started yet."""
        worker = AgentWorker(self.folder / name, runtime=self.name, agent=agent)
        worker.agent_env = {"HOME": str(self.home), **self.env(), **(env or {})}
        self.ending.callback(worker.close)
        return worker

    def prompt(self, *steps: Step, asking: bool = False) -> str:
        """A prompt that makes the agent do these steps (see script.py).

        Args:
            asking: the worker's approval policy lets the agent ask.
        """
        return script(*steps)

    def agent_process(self, worker: AgentWorker) -> psutil.Process:
        """The agent's own process."""
        raise NotImplementedError

    def conversation(self) -> str:
        """What the model was last told, as one text."""
        raise NotImplementedError


class Mock(Driver):
    """The scripted agent without a model."""

    name = "mock"
    persistent = False

    def prompt(self, *steps: Step, asking: bool = False) -> str:
        return block(*(part for step in steps for part in _mock_steps(step, asking)))


class Claude(Driver):
    """Claude Code against Anthropic's protocol."""

    name = "claude"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.server = self.ending.enter_context(AnthropicServer())

    def env(self) -> dict[str, str]:
        return {**self.server.env, "CLAUDE_CODE_MAX_RETRIES": "0"}

    def agent_process(self, worker: AgentWorker) -> psutil.Process:
        return next(p for p in worker.processes() if "--input-format" in p.cmdline())

    def conversation(self) -> str:
        return json.dumps(self.server.requests[-1]["messages"])


DRIVERS: tuple[type[Driver], ...] = (Mock, Claude)

_CLASSES = {429: "quota", 500: "overloaded", 401: "auth"}


def _mock_steps(step: Step, asking: bool) -> Iterator[Step]:
    """A step of the neutral script in mock's own."""
    fail = step.get("fail")
    if fail is not None:
        wait = {"retryAfterSeconds": fail["retry_after"]} if "retry_after" in fail else {}
        yield {"error": {"class": _CLASSES[fail["status"]], **wait}}
        return
    if step.get("drop"):
        yield {"error": {"class": "overloaded"}}
        return
    usage = {**DEFAULT_USAGE, **step.get("usage", {})}
    yield {
        "usage": {
            "inputTokens": usage["input"],
            "cachedInputTokens": usage["cached"],
            "cacheWriteTokens": usage["written"],
            "outputTokens": usage["output"],
            "reasoningOutputTokens": usage["reasoning"],
        }
    }
    for verb in ("think", "say", "write"):
        if verb in step:
            yield {verb: step[verb]}
    if "run" in step:
        yield {"ask": {"command": step["run"]}} if asking else {"run": step["run"]}
    if step.get("hang"):
        yield {"hang": True}
