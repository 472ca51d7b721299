"""Seeing objects through: progress lines until all have come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from cli import outcomes
from cli.errors import INTERRUPTED, TIMED_OUT, WAITED_FOR_FAILED, CliError
from cli.lookout import Lookout
from cli.outcomes import Outcome
from cli.progress import Progress
from controller.store.base import Key, key_of

if TYPE_CHECKING:
    from cli.client import Client, Watch
    from controller.store.base import Resource

TICK_SECONDS = 1.0


def say(text: str) -> None:
    """A line of progress, on stderr."""
    click.echo(text, err=True)


class Follower:
    """Follows some objects, and the tasks of those that are projects.

    Made before what it follows is written, so that it tells nothing old and misses nothing new.
    """

    def __init__(self, client: Client, watch: Watch, tell: Callable[[str], None] = say) -> None:
        self._client = client
        self._watch = watch
        self._progress = Progress(tell)

    def begin(self, keys: Iterable[Key]) -> None:
        """Take what is there already of these objects and their tasks as told."""
        for key in keys:
            obj = self._client.get(key)
            if obj is not None:
                self._progress.skip([obj, *self._members(key)])

    def _members(self, key: Key) -> list[Resource]:
        if key.kind != "Project":
            return []
        tasks = self._client.list("Task", key.namespace)
        return [task for task in tasks if task["spec"].get("project") == key.name]

    def run(self, keys: Sequence[Key], timeout: float | None) -> dict[Key, Outcome]:
        """Tell what happens until every object has come to rest.

        Raises: CliError after ``timeout`` seconds (None: never).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        projects = {key[1:] for key in keys if key.kind == "Project"}
        settled: dict[Key, Outcome] = {}
        lookout = Lookout(self._client, self._progress.line)
        changed: Iterable[Key] = [*keys, *(k for key in keys for k in self._keys(key))]
        while True:
            for key in changed:
                if key in keys or _is_member(key, projects):
                    self._visit(key, keys, settled)
            open_keys = [key for key in keys if key not in settled]
            if not open_keys:
                self._conclude(settled)
                return settled
            lookout.look()
            if deadline is not None and time.monotonic() >= deadline:
                raise CliError(f"timed out waiting for {', '.join(map(str, open_keys))}", TIMED_OUT)
            changed = [change.key for change in self._watch.wait(self._pause(deadline))]

    def _conclude(self, settled: Mapping[Key, Outcome]) -> None:
        for key, outcome in settled.items():
            obj = self._client.get(key) if outcome.good else None
            if obj is not None:
                self._progress.conclude(obj, outcome.text)

    def _keys(self, key: Key) -> Iterator[Key]:
        for task in self._members(key):
            yield Key("Task", key.namespace, task["metadata"]["name"])

    def _pause(self, deadline: float | None) -> float:
        if deadline is None:
            return TICK_SECONDS
        return max(0.0, min(TICK_SECONDS, deadline - time.monotonic()))

    def _visit(
        self,
        key: Key,
        keys: Sequence[Key],
        settled: dict[Key, Outcome],
    ) -> None:
        obj = self._client.get(key)
        if obj is None:
            if key in keys:
                settled[key] = Outcome(False, "deleted")
            return
        outcome = outcomes.of(obj) if key in keys else None
        if outcome is not None and key not in settled:
            # Changes of several kinds may come in any order; a project ends after its tasks.
            for task in self._members(key):
                self._progress.tell(task)
        self._progress.tell(obj)
        if outcome is None and key.kind == "Project":
            self._swarms(obj, keys)
        if outcome is not None:
            settled[key] = outcome
        elif key in keys:
            settled.pop(key, None)

    def _swarms(self, project: Resource, keys: Sequence[Key]) -> None:
        """What holds up the swarms that the project is to run on."""
        space = key_of(project).namespace
        for worker in project["spec"].get("workers") or []:
            key = Key("Swarm", space, worker["swarm"])
            # One that is followed is visited itself: a watch does not tell what was read here.
            swarm = None if key in keys else self._client.get(key)
            if swarm is not None:
                self._progress.hindered(swarm)


def _is_member(key: Key, projects: set[tuple[str, str]]) -> bool:
    """Whether it is a task of one of the projects, which its name tells."""
    project, dot, _ = key.name.partition(".")
    return bool(dot) and key.kind == "Task" and (key.namespace, project) in projects


@contextmanager
def follower(client: Client) -> Iterator[Follower]:
    """A follower from now on."""
    with closing(client.watch()) as watch:
        yield Follower(client, watch)


@contextmanager
def leave_running(what: str) -> Iterator[None]:
    """Ctrl-C ends the looking on, not the work; said so."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ninterrupted; {what}")
        raise click.exceptions.Exit(INTERRUPTED) from None


def judge(settled: dict[Key, Outcome]) -> None:
    """Raises: CliError when something that was waited for failed."""
    bad = [f"{key}: {outcome.text}" for key, outcome in settled.items() if not outcome.good]
    if bad:
        raise CliError("\n".join(bad), WAITED_FOR_FAILED)
