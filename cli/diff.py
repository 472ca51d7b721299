"""``codeswarm diff``: what an apply would change."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import click

from cli import manifests, printing, style
from cli.client import Applied
from cli.errors import FAILURE, USAGE, CliError
from cli.session import session, verb
from controller.store.base import Resource

_LEFT_OUT = ("resourceVersion", "generation", "managedFields")


@verb("diff")
@manifests.file_options(required=True)
def diff(*, files: tuple[str, ...], recursive: bool) -> None:
    """Show as a unified diff what `apply -f` would change; nothing is changed.

    Exits with 0 when there is no difference, 1 when there are some, 2 when a manifest is wrong.

    \b
    Examples:
      codeswarm diff -f swarm.yaml
      cat swarm.yaml | codeswarm diff -f -
    """
    about = session()
    try:
        documents = manifests.load(files, recursive)
        applied = about.client.apply(documents, namespace=about.namespace, dry_run=True)
    except CliError as error:
        raise CliError(str(error), USAGE if error.code == FAILURE else error.code) from None
    different = False
    for one in applied:
        for line in lines(one):
            different = True
            click.echo(_coloured(line))
    if different:
        raise click.exceptions.Exit(FAILURE)


def lines(one: Applied) -> Iterator[str]:
    """The unified diff of one object."""
    before, after = _masked(_shown(one.before), _shown(one.after))
    group = one.after["apiVersion"].replace("/", ".")
    name = f"{group}.{one.key.kind}.{one.key.namespace}.{one.key.name}"
    yield from difflib.unified_diff(
        _text(before), _text(after), f"LIVE/{name}", f"MERGED/{name}", lineterm=""
    )


def _shown(obj: Resource | None) -> Resource | None:
    if obj is None:
        return None
    metadata = {k: v for k, v in obj["metadata"].items() if k not in _LEFT_OUT}
    return {**{k: v for k, v in obj.items() if k != "status"}, "metadata": metadata}


def _masked(
    before: Resource | None, after: Resource | None
) -> tuple[Resource | None, Resource | None]:
    """A Secret's values made unreadable, differing ones still told apart (as kubectl does)."""
    if after is None or after["kind"] != "Secret":
        return before, after
    old, new = (before or {}).get("data") or {}, after.get("data") or {}

    def mask(values: dict[str, Any], other: dict[str, Any], word: str) -> dict[str, str]:
        return {
            name: "***" if other.get(name, value) == value else f"*** ({word})"
            for name, value in values.items()
        }

    masked = None if before is None else {**before, "data": mask(old, new, "before")}
    return masked, {**after, "data": mask(new, old, "after")}


def _text(obj: Resource | None) -> list[str]:
    return [] if obj is None else printing.to_yaml(obj).splitlines()


def _coloured(line: str) -> str:
    if line.startswith(("+++", "---")):
        return style.paint(line, "bold")
    tone = {"+": "good", "-": "bad", "@": "busy"}.get(line[:1])
    return style.paint(line, tone) if tone else line
