"""What agents are told and given: environments, profiles, personas; and what replaces workers."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from controller.reconcile.agent_spec import resolve_agent
from controller.resources.settings import EnvProfile, parse_settings
from tests.lab import swarm

PROFILES = """
envProfiles:
  gateway:
    model: claude-sonnet-5-5
    env:
      ANTHROPIC_BASE_URL: ${GATEWAY_URL}/v1
      ANTHROPIC_AUTH_TOKEN: ${GATEWAY_TOKEN}
      PRICE: $$5
  plain: {env: {MODE: fast}}
"""
OWN = {"GATEWAY_URL": "https://gw", "GATEWAY_TOKEN": "gateway-token-1", "PATH": os.environ["PATH"]}
SECRET = "hush-hush-hush"


def secret(value=SECRET, name="openai"):
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"api-key": value},
    }


def by_secret(name="OPENAI_API_KEY"):
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "openai", "key": "api-key"}}}


def agent(**fields):
    return {"runtime": "mock", **fields}


def set_up(rig, environ=OWN, profiles=PROFILES):
    rig.ctx.settings = rig.settings = parse_settings(profiles, "config.yaml")
    rig.ctx.environ = dict(environ)


def last(rig):
    """The request of the worker that was started last."""
    return list(rig.provider.live())[-1].request


async def ready(rig, launches=1):
    await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
    await rig.pass_time(20)
    assert launched(rig) == launches
    return last(rig)


def launched(rig):
    return sum(call.startswith("launch ") for call in rig.provider.calls)


def refusal(rig):
    found = rig.condition("Swarm", "builders", "Accepted")
    return found.get("reason"), found.get("message")


async def refused(rig, reason):
    await rig.until(lambda: refusal(rig)[0] == reason, reason)
    return refusal(rig)[1]


def test_a_profile_is_filled_in_and_gives_the_model(play):
    async def scenario(rig):
        set_up(rig, {**OWN, "OPENAI_API_KEY": "not inherited beside a profile"})
        env = [{"name": "PRICE", "value": "mine"}, {"name": "EXTRA", "value": "1"}]
        rig.apply(swarm(replicas=1, agent=agent(envProfile="gateway", env=env)))
        request = await ready(rig)
        assert request.env == {
            "ANTHROPIC_BASE_URL": "https://gw/v1",
            "ANTHROPIC_AUTH_TOKEN": "gateway-token-1",
            "PRICE": "mine",
            "EXTRA": "1",
        }
        assert request.config["secretNames"] == ["ANTHROPIC_AUTH_TOKEN"]
        assert request.config["agent"]["model"] == "claude-sonnet-5-5"
        assert rig.swarm()["effective"]["agent"]["model"] == "claude-sonnet-5-5"
        rig.patch("Swarm", "builders", agent=agent(envProfile="gateway", model="mine"))
        await rig.until(lambda: launched(rig) == 2, "the rollout")
        assert last(rig).config["agent"]["model"] == "mine"

    play(scenario)


def test_without_a_profile_the_providers_variables_are_inherited(play):
    async def scenario(rig):
        own = {"OPENAI_API_KEY": "inherited-key", "HTTPS_PROXY": "http://p:3128", "NPM_TOKEN": "no"}
        set_up(rig, own)
        rig.apply(swarm(replicas=1))
        request = await ready(rig)
        assert request.env == {"OPENAI_API_KEY": "inherited-key", "HTTPS_PROXY": "http://p:3128"}
        assert request.config["secretNames"] == ["OPENAI_API_KEY"]
        rig.apply(secret(), swarm(replicas=1, agent=agent(env=[by_secret()])))
        await rig.until(lambda: launched(rig) == 2, "the rollout")
        assert last(rig).env["OPENAI_API_KEY"] == SECRET

    play(scenario)


def test_a_missing_variable_is_named_and_its_coming_helps(play):
    async def scenario(rig):
        set_up(rig, {"GATEWAY_URL": "https://gw"})
        rig.apply(swarm(replicas=1, agent=agent(envProfile="gateway")))
        message = await refused(rig, "EnvironmentVariableNotSet")
        assert message == (
            "agent.envProfile gateway: not set in the environment of the controller: "
            "GATEWAY_TOKEN (for ANTHROPIC_AUTH_TOKEN)"
        )
        assert launched(rig) == 0
        rig.ctx.environ = dict(OWN)
        await rig.until(lambda: launched(rig) == 1, "the launch", 90)

    play(scenario)


def test_an_unknown_profile_names_those_there_are(play):
    async def scenario(rig):
        set_up(rig)
        rig.apply(swarm(replicas=1, agent=agent(envProfile="gatway")))
        message = await refused(rig, "EnvProfileNotFound")
        assert "'gatway'" in message and "there is: gateway, plain" in message
        rig.ctx.settings = replace(rig.ctx.settings, env_profiles={})
        await rig.until(lambda: "there is: none" in refusal(rig)[1], "the other message", 90)

    play(scenario)


def test_a_value_that_no_environment_can_hold_is_told_by_name(play):
    async def scenario(rig):
        rig.apply(secret("a\0b"), swarm(replicas=1, agent=agent(env=[by_secret()])))
        message = await refused(rig, "EnvironmentInvalid")
        assert message.startswith("env OPENAI_API_KEY: ") and "a\0b" not in message

    play(scenario)


def test_another_shell_does_not_replace_workers_but_edits_do(play):
    async def scenario(rig):
        set_up(rig, {**OWN, "HTTPS_PROXY": "http://p"})
        rig.apply(swarm(replicas=1, agent=agent(envProfile="gateway")))
        rig.apply(swarm("bare", replicas=1))
        await rig.until(lambda: launched(rig) == 2, "both")
        await rig.pass_time(20)
        await rig.crash()
        rig.start()
        rig.ctx.environ = {"GATEWAY_URL": "https://other", "GATEWAY_TOKEN": "other-token-12"}
        await rig.pass_time(120)
        assert launched(rig) == 2
        rig.ctx.settings = parse_settings(PROFILES.replace("/v1", "/v2"), "config.yaml")
        await rig.until(lambda: launched(rig) == 3, "the rollout", 90)
        assert last(rig).env["ANTHROPIC_BASE_URL"] == "https://other/v2"

    play(scenario)


def test_a_changed_secret_replaces_workers_and_its_hash_gives_nothing_away(play):
    async def scenario(rig):
        rig.apply(secret("1"), swarm(replicas=1, agent=agent(env=[by_secret()])))
        await ready(rig)
        first = rig.swarm()["workers"][0]["specHash"]
        for key in ("a", "b"):
            rig.apply(swarm(key, replicas=1, agent=agent(env=[by_secret()])))
        await rig.until(lambda: launched(rig) == 3, "two more")
        others = {rig.swarm(key)["workers"][0]["specHash"] for key in ("a", "b")}
        assert len({first, *others}) == 3, "the digest of a secret must be salted"
        rig.store.put_update({**rig.get("Secret", "openai"), "data": {"api-key": "Mg=="}})
        await rig.until(lambda: launched(rig) == 6, "the rollout", 90)
        assert last(rig).env["OPENAI_API_KEY"] == "2"

    play(scenario)


def test_a_literal_secret_of_a_profile_is_in_no_identity(play):
    async def scenario(rig):
        profile = EnvProfile(env={"OPENAI_API_KEY": "literal", "PLACE": "there"})
        rig.ctx.settings = replace(rig.ctx.settings, env_profiles={"own": profile})
        rig.apply(swarm(replicas=1, agent=agent(envProfile="own")))
        request = await ready(rig)
        assert request.env["OPENAI_API_KEY"] == "literal"
        found = resolve_agent(
            rig.ctx, rig.get("Swarm", "builders"), {"agent": agent(envProfile="own")}
        )
        assert found.identity["profile"]["PLACE"] == "there"
        assert "literal" not in str(found.identity)

    play(scenario)


def test_no_value_gets_anywhere_but_to_the_worker(play, caplog):
    async def scenario(rig):
        set_up(rig)
        env = [by_secret(), {"name": "MY_TOKEN", "value": "literal-token-1"}]
        rig.apply(secret(), swarm(replicas=1, agent=agent(envProfile="gateway", env=env)))
        request = await ready(rig)
        shown = json.dumps([rig.get("Swarm", "builders")["status"], dict(request.config)])
        shown += "".join(event.message for event in rig.store.events()) + caplog.text
        for value in (SECRET, "gateway-token-1", "literal-token-1"):
            assert value not in shown and value in request.env.values()

    play(scenario)


# --- personas ----------------------------------------------------------------------------------


def test_a_persona_is_given_after_the_baseline_and_rolls_out_when_it_changes(play):
    async def scenario(rig):
        folder = rig.path / "persona"
        (folder / "skills" / "review").mkdir(parents=True)
        (folder / "AGENTS.md").write_text("Be kind.\n")
        (folder / "skills" / "review" / "SKILL.md").write_text("# Review\n")
        rig.apply(swarm(replicas=1, agent=agent(persona={"path": "./persona"})))
        request = await ready(rig)
        persona = request.config["persona"]
        assert persona["instructions"].startswith("# How agents work here")
        assert "\n\nBe kind.\n\n# Skills\n" in persona["instructions"]
        assert persona["skills"] == {"review/SKILL.md": "# Review\n"}
        assert "persona" not in request.config["agent"]
        assert "Be kind" not in json.dumps(rig.swarm())
        (folder / "skills" / "review" / "SKILL.md").write_text("# Review better\n")
        await rig.until(lambda: launched(rig) == 2, "the rollout")
        assert last(rig).config["persona"]["skills"] == {"review/SKILL.md": "# Review better\n"}

    play(scenario)


def test_a_persona_that_breaks_is_told_and_ends_no_worker(play):
    async def scenario(rig):
        (rig.path / "persona").mkdir()
        agents = rig.path / "persona" / "AGENTS.md"
        agents.write_text("Be kind.\n")
        rig.apply(swarm(replicas=1, agent=agent(persona={"path": "persona"})))
        await ready(rig)
        agents.unlink()
        message = await refused(rig, "PersonaWithoutAgents")
        assert message == "agent.persona.path: 'persona' is a folder without AGENTS.md"
        await rig.pass_time(60)
        assert len(rig.provider.live()) == 1 and launched(rig) == 1
        agents.write_text("Be kind.\n")
        await rig.until(lambda: refusal(rig)[0] == "Accepted", "acceptance", 90)
        assert launched(rig) == 1

    play(scenario)


def test_a_persona_of_a_config_map(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, agent=agent(persona={"configMapRef": {"name": "backend"}})))
        await refused(rig, "ConfigMapNotFound")
        data = {"AGENTS.md": "From a map.\n", "skills__x__SKILL.md": "# X\n"}
        rig.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "backend"}, "data": data}
        )
        await rig.until(lambda: launched(rig) == 1, "the launch", 90)
        persona = last(rig).config["persona"]
        assert "\n\nFrom a map.\n\n# Skills\n" in persona["instructions"]
        assert persona["skills"] == {"x/SKILL.md": "# X\n"}

    play(scenario)


def test_without_a_persona_there_is_the_baseline(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        persona = (await ready(rig)).config["persona"]
        assert persona["instructions"].startswith("# How agents work here")
        assert persona["skills"] == {}

    play(scenario)


@pytest.mark.parametrize("name", ["../persona", "/etc"])
def test_a_path_that_leaves_the_manifests_folder_is_no_valid_manifest(play, name):
    from controller.resources.admission import admit
    from controller.resources.errors import Invalid

    with pytest.raises(Invalid, match="persona"):
        admit(swarm(agent=agent(persona={"path": name})))
