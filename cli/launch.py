"""``codeswarm launch``: a swarm without a manifest."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import following, hindrances, outcomes
from cli.errors import WAITED_FOR_FAILED, CliError
from cli.file_apply import BASE_DIR
from cli.quick import follow_swarm, provider_of
from cli.selectors import reference
from cli.session import session, verb
from controller.resources.kinds import API_VERSION
from controller.store.base import Key, Resource

if TYPE_CHECKING:
    from cli.client import Client

ACCEPT_SECONDS = 10.0
"""How long a detached launch waits to hear whether the swarm is accepted."""


@verb("launch", makes_home=True, no_args_is_help=True)
@click.argument("name")
@click.option(
    "--nodes", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="Workers."
)
@click.option(
    "--runtime", type=click.Choice(["codex", "claude", "mock"]), help="What the agent is."
)
@click.option("--model", metavar="NAME", help="Model of the agent.")
@click.option("--prompt", metavar="TEXT", help="System prompt: the first turn of each worker.")
@click.option(
    "--provider",
    metavar="CLASS",
    default="local",
    show_default=True,
    help="A SwarmClass, or local, slurm or aws.",
)
@click.option(
    "--provider-param",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="A field of the provider, such as partition=gpu; several times.",
)
@click.option("--agents", metavar="PATH", help="Persona: a file, or a folder with AGENTS.md.")
@click.option("--detach", is_flag=True, help="Do not follow.")
def launch(
    *,
    name: str,
    nodes: int,
    runtime: str | None,
    model: str | None,
    prompt: str | None,
    provider: str,
    parameters: tuple[str, ...],
    agents: str | None,
    detach: bool,
) -> None:
    """Make a swarm without a manifest, and follow what its agents do until Ctrl-C.

    \b
    Examples:
      codeswarm launch team --nodes 4 --runtime mock --prompt "You are careful." --detach
      codeswarm launch gpu --nodes 8 --runtime mock --provider lab --provider-param partition=a100
      codeswarm launch team --runtime mock --agents ./personas/backend
    """
    about = session()
    client = about.client
    if agents is not None and about.in_cluster:
        raise CliError(
            "--agents: a folder of this machine is not there in a cluster; put its files into a "
            "ConfigMap and name that in a manifest (spec.agent.persona.configMapRef)"
        )
    agent = {"runtime": runtime, "model": model}
    spec: dict[str, Any] = {"replicas": nodes}
    annotations = {}
    if agents is not None:
        folder, persona = _persona(agents)
        agent["persona"] = persona  # type: ignore[assignment]
        annotations[BASE_DIR] = folder
    spec["agent"] = {field: value for field, value in agent.items() if value is not None}
    if prompt is not None:
        spec["systemPrompt"] = prompt
    spec |= _provider(provider, parameters)
    swarm: Resource = {
        "apiVersion": API_VERSION,
        "kind": "Swarm",
        "metadata": {"name": name, "namespace": about.namespace, "annotations": annotations},
        "spec": spec,
    }
    key = Key("Swarm", about.namespace, name)
    with following.follower(client) as follower:
        client.create(swarm)
        click.echo(f"{reference('Swarm', name)} created")
        client.ensure_controller(following.say)
        if detach:
            _judge_soon(client, key)
            return
        with following.leave_running(f"the swarm runs on; `codeswarm terminate {name}` ends it"):
            following.judge(follower.run([key], None))
    follow_swarm(name, None)


def _judge_soon(client: Client, key: Key) -> None:
    """Wait until a controller has looked at the swarm. Raises: CliError if it is not accepted."""
    deadline = time.monotonic() + ACCEPT_SECONDS
    with closing(client.watch()) as watch:
        while time.monotonic() < deadline and client.controller().running:
            obj = client.get(key)
            held = hindrances.of(obj) if obj is not None else None
            if held is not None:
                raise CliError(f"{key} {held.text}", WAITED_FOR_FAILED)
            if obj is None or outcomes.current(obj):
                return
            watch.wait(0.5)


def _persona(path: str) -> tuple[str, dict[str, str]]:
    """Folder and relative path of a persona."""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise CliError(f"--agents {path}: there is no such file or folder")
    return str(found.parent), {"path": found.name}


def _provider(name: str, parameters: tuple[str, ...]) -> dict[str, Any]:
    class_name, kind = provider_of(name)
    values: dict[str, Any] = {}
    for parameter in parameters:
        field, equals, text = parameter.partition("=")
        if not field or not equals:
            raise CliError(f"--provider-param {parameter}: KEY=VALUE, such as partition=gpu")
        _set(values, field.split("."), _value(text))
    if class_name is None:
        return {"provider": {kind: values}}
    return {"className": class_name, **({"provider": {kind: values}} if values else {})}


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise CliError(f"--provider-param {'.'.join(path)}: {part} is a value already")
    values[path[-1]] = value


def _value(text: str) -> Any:
    """A value as YAML reads it, so that numbers and lists can be given."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
