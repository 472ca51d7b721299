"""``codeswarm approvals``: what agents ask, as a table, or one by one as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli import ages, following, style, table
from cli.answers import MAX_DIFF_LINES, question_of, told_of
from cli.lookout import Lookout
from cli.overview import phase_of
from cli.session import Session, session, verb

if TYPE_CHECKING:
    from controller.store.base import Resource

HEADERS = ("NAME", "TASK", "WORKER", "ASKS", "EXPIRES", "AGE")


@verb("approvals")
@click.option("-w", "--watch", is_flag=True, help="Show each question as it comes, and its answer.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
def approvals(*, watch: bool, all_namespaces: bool) -> None:
    """List what agents ask and nobody has answered; `get approvals` lists the answered ones too.

    \b
    Examples:
      codeswarm approvals
      codeswarm approvals -w
    """
    about = session()
    space = None if all_namespaces else about.namespace
    if watch:
        _watch(about, space)
        return
    waiting = [obj for obj in about.client.list("Approval", space) if _open(obj)]
    if not waiting:
        where = "" if all_namespaces else f" in {about.namespace} namespace"
        click.echo(f"No agent waits for an answer{where}.", err=True)
        return
    now = time.time()
    rows = [_row(obj, now, with_namespace=all_namespaces) for obj in waiting]
    headers = ["NAMESPACE", *HEADERS] if all_namespaces else HEADERS
    click.echo(table.render(headers, rows), nl=False)


def _open(obj: Resource) -> bool:
    status = obj.get("status") or {}
    decided = obj["spec"].get("decision") or "outcome" in status
    return phase_of(obj) == "Pending" and not decided


def _row(obj: Resource, now: float, *, with_namespace: bool) -> list[str]:
    meta, request = obj["metadata"], obj["spec"].get("request") or {}
    row = [
        meta["name"],
        request.get("task", ""),
        f"{request.get('swarm', '')}/{request.get('worker', '')}",
        question_of(request),
        left(request.get("expiresAt"), now),
        ages.age(meta.get("creationTimestamp"), now),
    ]
    return [meta.get("namespace", "default"), *row] if with_namespace else row


def left(expires: str | None, now: float) -> str:
    """How long a question stays open: ``in 14m``."""
    if not expires:
        return ""
    try:
        return f"in {ages.human(max(0.0, ages.parse(expires) - now))}"
    except ValueError:
        return "<invalid>"


def _watch(about: Session, space: str | None) -> None:
    """Each question once, and once more when it is answered or gone."""
    client = about.client
    shown: dict[str, str] = {}
    with closing(client.watch()) as watch, following.leave_running("nothing was changed"):
        lookout = Lookout(client, following.say)
        for obj in client.list("Approval", space):
            shown[obj["metadata"]["uid"]] = phase_of(obj)
            if _open(obj):
                _print(about, obj)
        while True:
            lookout.look()
            for change in watch.wait(1.0):
                if change.key.kind != "Approval" or space not in (None, change.key.namespace):
                    continue
                found = client.get(change.key)
                if found is not None:
                    _changed(about, found, shown)


def _changed(about: Session, obj: Resource, shown: dict[str, str]) -> None:
    uid, phase = obj["metadata"]["uid"], phase_of(obj)
    if "status" not in obj or shown.get(uid) == phase:
        return
    known = uid in shown
    shown[uid] = phase
    if phase == "Pending":
        _print(about, obj)
    elif known:
        name = obj["metadata"]["name"]
        said = (obj.get("status") or {}).get("message") or phase.lower()
        click.echo(table.clean(f"approval/{name} {phase}: {said}\n"))


def _print(about: Session, obj: Resource) -> None:
    lines = told_of(about, obj, time.time(), MAX_DIFF_LINES)
    click.echo("\n".join(_painted(list(lines))) + "\n")


def _painted(lines: Sequence[str]) -> Iterator[str]:
    """The first line stands out; what agents wrote cannot reach the terminal's controls."""
    for number, line in enumerate(lines):
        text = table.clean(line)
        yield style.paint(text, "warn") if number == 0 else text
