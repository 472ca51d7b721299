"""``codeswarm logs``: what agents said and did, as text or as their records."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli import ages, complete, following, log_source, render, style
from cli.follow import Line, Reader
from cli.lookout import Lookout
from cli.session import session, verb

if TYPE_CHECKING:
    from cli.client import Client
    from cli.log_source import Source


POLL_SECONDS = 0.2  # transcripts are files: nothing tells that they have grown
REFRESH_SECONDS = 1.0


@verb("logs", no_args_is_help=True)
@click.argument(
    "words", nargs=-1, required=True, metavar="WHAT", shell_complete=complete.any_object
)
@click.option("-f", "--follow", is_flag=True, help="Go on until it is finished.")
@click.option("--json", "as_json", is_flag=True, help="The records themselves, one a line.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only a task's Nth attempt.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
def logs(
    *,
    words: tuple[str, ...],
    follow: bool,
    as_json: bool,
    attempt: int | None,
    tail: int | None,
) -> None:
    """Print what agents said and did: a task's, a project's, a worker's or a whole swarm's.

    WHAT is task/NAME, project/NAME, swarm/NAME (just NAME where only one of them has it), or a
    worker as SWARM/INDEX. A swarm's has the set-up logs of its machines too; SWARM/INSTANCE is
    that of one.

    \b
    Examples:
      codeswarm logs task/greeter.docs
      codeswarm logs -f project/greeter
      codeswarm logs builders/0 --tail 20
      codeswarm logs greeter.docs --attempt 2 --json
      codeswarm logs cloud/i-0aa0aa0aa0aa0aa0a
    """
    about = session()
    what = log_source.word_of(about.client, about.namespace, words)
    source = log_source.of(about.client, about.namespace, what, attempt)
    show(about.client, source, follow=follow, as_json=as_json, tail=tail)


def show(
    client: Client, source: Source, *, follow: bool, as_json: bool = False, tail: int | None = None
) -> None:
    """Print a source's lines, and with ``follow`` those to come until it is finished."""
    reader = Reader(source.accept)
    told = render.Told()
    with closing(client.watch()) as watch:
        done = not follow or source.finished()
        reader.add(source.transcripts())
        _print(_formatted(reader.read(), source, told, as_json), tail)
        refreshed = time.monotonic()
        lookout = Lookout(client, following.say)
        while not done:
            lookout.look()
            changes = watch.wait(POLL_SECONDS)
            if changes or time.monotonic() - refreshed > REFRESH_SECONDS:
                done = source.finished()  # first: what was written before it is read below
                reader.add(source.transcripts())
                refreshed = time.monotonic()
            _print(_formatted(reader.read(), source, told, as_json), None)


def _print(lines: Iterable[str], tail: int | None) -> None:
    for line in lines if tail is None else deque(lines, maxlen=tail):
        click.echo(line)


def _formatted(
    lines: Iterable[Line], source: Source, told: render.Told, as_json: bool
) -> Iterator[str]:
    for line in lines:
        if as_json:
            yield json.dumps(line.record, separators=(",", ":"))
        else:
            yield from text_of(line, source.label(line), told)


def text_of(line: Line, label: str, told: render.Told | None = None) -> list[str]:
    """The lines for people that one record gives; what ``told`` knows is left out."""
    head = style.paint(ages.clock(line.at), "dim")
    if label:
        head += " " + style.paint(label, "busy")
    record = told.without_repeats(line.record) if told else line.record
    return [f"{head}  {text}" for text in render.lines(record)]
