"""``codeswarm approve`` and ``deny``: a person's answer to what an agent asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import complete, following
from cli.errors import CliError
from cli.selectors import find, key, one, reference
from cli.session import session, verb

if TYPE_CHECKING:
    from controller.store.base import Key, Resource

MAX_REASON = 4096

_names = click.argument(
    "names", nargs=-1, required=True, metavar="APPROVAL...", shell_complete=complete.open_approvals
)
_reason = click.option(
    "--reason", metavar="TEXT", default="", help="Why; kept, and told to the agent if it can be."
)


@verb("approve", no_args_is_help=True)
@_names
@click.option("--session", "session_", is_flag=True, help="The like for the rest of its session.")
@click.option("--always", is_flag=True, help="Also what its policy amendment would allow.")
@_reason
def approve(*, names: tuple[str, ...], session_: bool, always: bool, reason: str) -> None:
    """Let agents do what they ask for. `codeswarm approvals` shows what is asked.

    \b
    Examples:
      codeswarm approve greeter.docs.1.d5e540d1aa
      codeswarm approve greeter.docs.1.d5e540d1aa --session --reason "a test database"
    """
    if session_ and always:
        raise click.UsageError("--session and --always are two answers: give one of them")
    _decide(
        names, "approve-always" if always else "approve-session" if session_ else "approve", reason
    )


@verb("deny", no_args_is_help=True)
@_names
@click.option("--cancel", "cancel_", is_flag=True, help="End the agent's turn as well.")
@_reason
def deny(*, names: tuple[str, ...], cancel_: bool, reason: str) -> None:
    """Refuse what agents ask for; they are told, and go on without it.

    \b
    Examples:
      codeswarm deny greeter.docs.1.d5e540d1aa --reason "use the local copy"
      codeswarm deny greeter.docs.1.d5e540d1aa --cancel
    """
    _decide(names, "cancel" if cancel_ else "deny", reason)


def _decide(names: Sequence[str], value: str, reason: str) -> None:
    if len(reason) > MAX_REASON:
        raise CliError(f"--reason has {len(reason)} characters; {MAX_REASON} are allowed")
    client = session().client
    keys = list(dict.fromkeys(_key(name) for name in names))
    for wanted in keys:
        check(find(client, wanted), value)
    decision: dict[str, Any] = {"value": value}
    by = client.user()
    if by:
        decision["by"] = by
    if reason:
        decision["reason"] = reason

    def change(obj: Resource) -> None:
        check(obj, value)
        obj["spec"]["decision"] = decision

    for wanted in keys:
        client.update(wanted, change)
        word = "denied" if value in ("deny", "cancel") else "approved"
        click.echo(f"{reference(wanted.kind, wanted.name)} {word}")
    client.ensure_controller(following.say)


def _key(name: str) -> Key:
    kind, name = one([name], default="Approval")
    if kind.kind != "Approval":
        raise CliError(f'"{kind.singular}/{name}" is no approval')
    return key(kind, session().namespace, name)


def check(obj: Resource, value: str) -> None:
    """Raises: CliError where the question cannot be answered so (any more)."""
    name, spec, status = obj["metadata"]["name"], obj["spec"], obj.get("status") or {}
    decision = spec.get("decision")
    if decision:
        by = f" by {decision['by']}" if decision.get("by") else ""
        raise CliError(f'approval "{name}" is answered already: {decision["value"]}{by}')
    if status.get("outcome") == "expired":
        raise CliError(f'approval "{name}" has expired: its agent does not wait for it any more')
    if status.get("outcome"):
        told = status.get("message") or status["outcome"]
        raise CliError(f'approval "{name}" is answered already: {told}')
    offered = spec["request"].get("decisions") or []
    if value not in offered:
        raise CliError(f'approval "{name}" does not offer {value}; it offers {", ".join(offered)}')
