"""Fixtures: scripted model servers, and workers that drive real agents with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.anthropic_server import AnthropicServer
from tests.agents.codex_worker import CodexWorker
from tests.agents.drivers import DRIVERS, ClaudeWorker, Driver
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer


@pytest.fixture(scope="module")
def openai() -> Iterator[OpenAIServer]:
    """A scripted model behind OpenAI's API."""
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="session")
def proxy() -> Iterator[NoNetwork]:
    """What any other host is asked through."""
    with NoNetwork() as server:
        yield server


@pytest.fixture
def no_network(proxy: NoNetwork) -> Iterator[NoNetwork]:
    """No other host is asked for anything during the test."""
    before = len(proxy.wanted)
    yield proxy
    assert proxy.wanted[before:] == []


@pytest.fixture
def make_codex(
    tmp_path: Path, openai: OpenAIServer, no_network: NoNetwork
) -> Iterator[Callable[..., CodexWorker]]:
    """Makes workers with Codex (not started yet)."""
    made: list[CodexWorker] = []

    def make(name: str = "c0", **agent: object) -> CodexWorker:
        made.append(CodexWorker(tmp_path / name, openai, no_network, **agent))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def codex(make_codex: Callable[..., CodexWorker]) -> CodexWorker:
    """A running worker with Codex."""
    worker = make_codex()
    worker.start()
    return worker


@pytest.fixture(scope="module")
def anthropic() -> Iterator[AnthropicServer]:
    """A scripted model behind Anthropic's API."""
    with AnthropicServer() as server:
        yield server


@pytest.fixture
def make_claude(
    tmp_path: Path, anthropic: AnthropicServer, no_network: NoNetwork
) -> Iterator[Callable[..., ClaudeWorker]]:
    """Makes workers with Claude Code (not started yet)."""
    made: list[ClaudeWorker] = []

    def make(name: str = "a0", **agent: object) -> ClaudeWorker:
        made.append(ClaudeWorker(tmp_path / name, anthropic, no_network, **agent))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture(scope="module")
def shared_claude(
    tmp_path_factory: pytest.TempPathFactory, anthropic: AnthropicServer, proxy: NoNetwork
) -> Iterator[ClaudeWorker]:
    """A running worker with Claude Code that asks about everything but reading."""
    base = tmp_path_factory.mktemp("shared") / "a0"
    worker = ClaudeWorker(base, anthropic, proxy, approvalPolicy="untrusted")
    worker.start()
    yield worker
    worker.close()


@pytest.fixture(scope="module", params=DRIVERS, ids=lambda kind: kind.name)
def driver(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    proxy: NoNetwork,
) -> Iterator[Driver]:
    """Each runtime in turn; meanwhile no other host is asked for anything."""
    before = len(proxy.wanted)
    with request.param(tmp_path_factory.mktemp(request.param.name), proxy) as made:
        yield made
    assert proxy.wanted[before:] == []
