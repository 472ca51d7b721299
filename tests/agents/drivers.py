"""One runtime each, so that a scenario is written once: its workers, prompts, and what it lacks."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import psutil

from tests.agents import script
from tests.agents.anthropic_server import AnthropicServer
from tests.agents.codex_worker import CodexWorker
from tests.agents.model_server import ModelServer
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer
from tests.agents.script import Reply
from tests.worker.harness import Worker, block


class ClaudeWorker(Worker):
    """A worker folder, and the process in it.

    Args:
        base: the folder.
        server: the model.
        network: what other hosts are asked through.
        agent: the ``agent`` block; ``persona`` goes beside it.
    """

    def __init__(
        self, base: Path, server: AnthropicServer, network: NoNetwork, **agent: Any
    ) -> None:
        beside = {name: agent.pop(name) for name in ("persona", "systemPrompt") if name in agent}
        block = {"sandboxMode": "danger-full-access", **agent}
        super().__init__(base, runtime="claude", agent=block, **beside)
        home = base.parent / "home"
        home.mkdir(exist_ok=True)
        self.env = {**self.env, **network.env, "HOME": str(home)}
        self.secrets: Mapping[str, str] = {**server.env, "CLAUDE_CODE_MAX_RETRIES": "0"}

    def spawn(self) -> Any:
        """Write the ``env`` file, which the worker takes, and start."""
        path = self.base / "env"
        path.write_text(json.dumps(dict(self.secrets)))
        path.chmod(0o600)
        return super().spawn()


class Driver(ABC):
    """A runtime; a context manager that ends what it began.

    Args:
        folder: for the workers.
        network: what other hosts are asked through.
    """

    name: str
    usage_extra: ClassVar[Mapping[str, int]] = {}
    """Tokens that not every provider counts, for a reply's ``usage``."""

    def __init__(self, folder: Path, network: NoNetwork) -> None:
        self.folder = folder
        self.network = network
        self.ending = ExitStack()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.close()

    def make(self, name: str, **agent: Any) -> Worker:
        """A worker that is not started yet; it ends with the driver."""
        worker = self.worker(self.folder / name, **agent)
        self.ending.callback(worker.close)
        return worker

    @abstractmethod
    def worker(self, base: Path, **agent: Any) -> Worker:
        """A worker of this runtime."""

    def prompt(self, *replies: Reply, asking: bool = False) -> str:
        """A prompt that makes the agent do this (see script.py).

        Args:
            asking: the worker's approval policy lets the agent ask.
        """
        return script.prompt(*replies)

    def quota(self, seconds: int) -> Reply:
        """A reply by which the provider asks to wait so long."""
        return {"fail": 429, "headers": {"retry-after": str(seconds)}}

    overflow: ClassVar[Reply | None] = None
    """A reply by which the provider says that the conversation is too long for the model."""
    agent: str = ""
    """How the command line of the agent's own process begins to be known; empty: it has none."""

    def process(self, worker: Worker) -> psutil.Process:
        """The agent's own process."""
        assert worker.process is not None
        below = psutil.Process(worker.process.pid).children()
        (found,) = [one for one in below if self.agent in " ".join(one.cmdline())]
        return found


class Mock(Driver):
    """The scripted agent without a model."""

    name = "mock"
    usage_extra: ClassVar[Mapping[str, int]] = {"written": 100}

    def worker(self, base: Path, **agent: Any) -> Worker:
        return Worker(base, runtime="mock", agent=agent)

    def prompt(self, *replies: Reply, asking: bool = False) -> str:
        return block(*(step for reply in replies for step in _mock_steps(reply, asking)))


class _Real(Driver):
    """An agent with a process and a model of its own."""

    server: ModelServer

    def conversation(self) -> str:
        """What the model was last told, as one text."""
        body = self.server.asked()[-1].body
        return json.dumps(body.get("messages") or body.get("input"))


class Codex(_Real):
    """Codex against OpenAI's protocol."""

    name = "codex"
    agent = "app-server"
    overflow: ClassVar[Reply | None] = {"error": "context_length_exceeded"}

    def __init__(self, folder: Path, network: NoNetwork) -> None:
        super().__init__(folder, network)
        self.openai = OpenAIServer()
        self.server = self.ending.enter_context(self.openai)

    def worker(self, base: Path, **agent: Any) -> Worker:
        return CodexWorker(base, self.openai, self.network, **agent)

    def quota(self, seconds: int) -> Reply:
        message = f"Rate limit reached. Please try again in {seconds}s."
        return {"error": "rate_limit_exceeded", "message": message}


class Claude(_Real):
    """Claude Code against Anthropic's protocol."""

    name = "claude"
    agent = "--input-format"
    usage_extra: ClassVar[Mapping[str, int]] = {"written": 100}
    overflow: ClassVar[Reply | None] = {
        "fail": 400,
        "type": "invalid_request_error",
        "message": "prompt is too long: 1000001 tokens > 1000000 maximum",
    }

    def __init__(self, folder: Path, network: NoNetwork) -> None:
        super().__init__(folder, network)
        self.anthropic = AnthropicServer()
        self.server = self.ending.enter_context(self.anthropic)

    def worker(self, base: Path, **agent: Any) -> ClaudeWorker:
        return ClaudeWorker(base, self.anthropic, self.network, **agent)


DRIVERS: tuple[Callable[[Path, NoNetwork], Driver], ...] = (Mock, Codex, Claude)

_CLASSES = {429: "quota", 500: "overloaded", 401: "auth"}


def _mock_steps(reply: Reply, asking: bool) -> Iterator[dict[str, Any]]:
    """A reply in mock's own steps."""
    if "fail" in reply:
        after = (reply.get("headers") or {}).get("retry-after")
        wait = {"retryAfterSeconds": int(after)} if after else {}
        yield {"error": {"class": _CLASSES[reply["fail"]], **wait}}
        return
    if reply.get("drop"):
        yield {"error": {"class": "overloaded"}}
        return
    counts = {**script.USAGE, "written": 0, **reply.get("usage", {})}
    yield {
        "usage": {
            "inputTokens": counts["input"],
            "cachedInputTokens": counts["cached"],
            "cacheWriteTokens": counts["written"],
            "outputTokens": counts["output"],
            "reasoningOutputTokens": counts["reasoning"],
        }
    }
    for verb in ("think", "say", "write"):
        if verb in reply:
            yield {verb: reply[verb]}
    if "run" in reply:
        yield {"ask": {"command": reply["run"]}} if asking else {"run": reply["run"]}
    if reply.get("hold"):
        yield {"hang": True}
