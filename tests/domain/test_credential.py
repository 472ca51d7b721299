"""Which swarms have the same credential, and that nothing of it can be told from what is shown."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.credential import credential_of, shown

GATEWAY = """
model_provider = "gateway"
[model_providers.gateway]
base_url = "https://models.example/v1"
env_key = "GATEWAY_KEY"
"""


def credential(runtime: str, env: dict[str, str] | None = None, **more: Any) -> str:
    settings = {"place": "local", "own": "uid-1", "agent": {}} | more
    return credential_of(runtime, settings.pop("agent"), env or {}, **settings)


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        ("codex", "OPENAI_API_KEY"),
        ("claude", "ANTHROPIC_API_KEY"),
        ("claude", "ANTHROPIC_AUTH_TOKEN"),
        ("claude", "CLAUDE_CODE_OAUTH_TOKEN"),
        ("mock", "MOCK_API_KEY"),
    ],
)
def test_the_same_key_is_the_same_credential_wherever_it_is_used(runtime: str, name: str) -> None:
    one = credential(runtime, {name: "a", "OTHER": "1"})
    assert one == credential(runtime, {name: "a", "OTHER": "2"}, own="uid-2", place="slurm/x")
    assert one != credential(runtime, {name: "b"})
    assert one != credential(runtime)


@pytest.mark.parametrize(
    ("runtime", "key", "address"),
    [
        ("codex", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
        ("claude", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
        ("mock", "MOCK_API_KEY", "MOCK_BASE_URL"),
    ],
)
def test_the_same_key_at_another_address_is_another_credential(
    runtime: str, key: str, address: str
) -> None:
    one = credential(runtime, {key: "a", address: "https://one.example"})
    assert one != credential(runtime, {key: "a", address: "https://two.example"})
    assert one != credential(runtime, {key: "a"})


def test_runtimes_have_providers_of_their_own() -> None:
    both = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "MOCK_API_KEY": "k"}
    assert len({credential(runtime, both) for runtime in ("codex", "claude", "mock")}) == 3


def test_a_login_is_that_of_a_place() -> None:
    assert credential("codex") == credential("codex", own="uid-2")
    assert credential("codex") != credential("codex", place="slurm/login.example")
    url = {"OPENAI_BASE_URL": "https://models.example/v1"}
    assert credential("codex", url) != credential("codex", url, place="slurm/login.example")


def test_the_scripted_agent_without_a_key_has_an_account_for_each_swarm() -> None:
    assert credential("mock") != credential("mock", own="uid-2")


def test_a_gateway_of_codex_has_its_own_key_and_address() -> None:
    agent = {"codex": {"config": GATEWAY}}
    one = credential("codex", {"GATEWAY_KEY": "a"}, agent=agent)
    assert one == credential("codex", {"GATEWAY_KEY": "a"}, agent={**agent, "model": "x"})
    assert one != credential("codex", {"GATEWAY_KEY": "b"}, agent=agent)
    elsewhere = {"codex": {"config": GATEWAY.replace("models.example", "other.example")}}
    assert one != credential("codex", {"GATEWAY_KEY": "a"}, agent=elsewhere)


@pytest.mark.parametrize(
    "config", ["[", "model_providers = 3", "[model_providers]\nx = 1", "model_provider = 7"]
)
def test_configurations_that_codex_will_refuse_are_no_trouble_here(config: str) -> None:
    assert credential("codex", agent={"codex": {"config": config}})


def test_what_is_shown_cannot_confirm_a_guess() -> None:
    keys = [credential("claude", {"ANTHROPIC_API_KEY": f"secret-{n}"}) for n in range(2000)]
    assert len(set(keys)) == 2000
    assert len({shown(key) for key in keys}) < 2000
    assert all(len(shown(key)) == 4 for key in keys)
