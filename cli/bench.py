"""``codeswarm bench``: a small measurement of the whole, in a home of its own."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import outcomes
from cli.delete import mark_forced
from cli.errors import TIMED_OUT, WAITED_FOR_FAILED, CliError
from cli.session import verb
from controller.resources.kinds import API_VERSION
from controller.store.base import Key, NotFound

if TYPE_CHECKING:
    from cli.client import Client
    from controller.store.base import Resource

SWARM = "bench"
DEADLINE_SECONDS = 600.0
LATENCY_PROMPTS = 30


@verb("bench")
@click.option("--prompts", type=click.IntRange(1, 20000), default=500, show_default=True)
@click.option("--tasks", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True)
def bench(*, prompts: int, tasks: int, workers: int) -> None:
    """Measure prompts a second (no git) and tasks a second (commit, push, integration) with
    scripted agents, in a temporary home; your own is not touched.

    \b
    Examples:
      codeswarm bench
      codeswarm bench --prompts 2000 --tasks 50 --workers 8
    """
    click.echo(machine())
    with tempfile.TemporaryDirectory(prefix="codeswarm-bench-") as folder, _home(folder) as client:
        client.create(_swarm(workers))
        client.ensure_controller(lambda _: None)
        begin = time.monotonic()
        _settle(client, [Key("Swarm", "default", SWARM)])
        click.echo(f"start      {workers} workers ready in {time.monotonic() - begin:.2f} s")
        _latency(client)
        _prompts(client, prompts, Path(folder))
        _tasks(client, tasks, Path(folder))


def machine() -> str:
    """What it is measured on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"machine    {cpus} CPUs, {system}, Python {platform.python_version()}"


@contextmanager
def _home(folder: str) -> Iterator[Client]:
    """A client of a fresh home; at the end nothing of it runs any more."""
    from cli import process
    from cli.file_client import FileClient
    from controller.runtime.home import Home

    # What ends this program shall end its workers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Home.at(Path(folder) / "home")
    client = FileClient(home)
    try:
        yield client
    finally:
        try:
            _end_workers(client)
        finally:
            process.stop(home)
            client.close()


def _end_workers(client: Client) -> None:
    key = Key("Swarm", "default", SWARM)
    with closing(client.watch()) as watch:
        try:
            mark_forced(client, key)
            client.delete(key)
        except NotFound:
            return
        deadline = time.monotonic() + 60
        while client.get(key) is not None and time.monotonic() < deadline:
            watch.wait(0.5)


def _settle(client: Client, keys: Sequence[Key]) -> None:
    """Wait until all have come to rest, well.

    Raises: CliError.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    waiting = set(keys)
    with closing(client.watch()) as watch:
        changed: Iterable[Key] = list(keys)
        while True:
            for key in waiting & set(changed):
                obj = client.get(key)
                outcome = outcomes.of(obj) if obj is not None else outcomes.Outcome(False, "gone")
                if outcome is not None and not outcome.good:
                    raise CliError(f"{key}: {outcome.text}", WAITED_FOR_FAILED)
                if outcome is not None:
                    waiting.discard(key)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise CliError(f"{len(waiting)} of {len(keys)} are not done in time", TIMED_OUT)
            changed = [change.key for change in watch.wait(1.0)]


def _latency(client: Client) -> None:
    """One prompt after the other, from its commit to its end."""
    taken = []
    for number in range(LATENCY_PROMPTS):
        task = _prompt(f"one-{number}")
        client.create(task)
        begin = time.monotonic()
        _settle(client, [Key("Task", "default", task["metadata"]["name"])])
        taken.append((time.monotonic() - begin) * 1000)
    median, worst = statistics.median(taken), max(taken)
    click.echo(f"latency    {median:.0f} ms a prompt (median), {worst:.0f} ms the slowest")


def _prompts(client: Client, count: int, folder: Path) -> None:
    objects = [_prompt(f"many-{number}") for number in range(count)]
    seconds = _apply_and_settle(client, objects, folder / "prompts.json")
    click.echo(f"prompts    {count} in {seconds:.2f} s: {count / seconds:.0f} a second")


def _tasks(client: Client, count: int, folder: Path) -> None:
    repository = folder / "bench.git"
    subprocess.run(
        ["git", "init", "-q", "--bare", str(repository)], check=True, capture_output=True
    )
    project = _project(count, str(repository))
    seconds = _apply_and_settle(client, [project], folder / "project.json")
    click.echo(
        f"tasks      {count} with commit and push, and their integration, in {seconds:.2f} s: "
        f"{count / seconds:.1f} a second"
    )


def _apply_and_settle(client: Client, objects: Sequence[Resource], file: Path) -> float:
    """Seconds from the commit of all to the end of the last."""
    from controller.resources import manifest

    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    documents = manifest.load([str(file)])
    applied = client.apply(documents, namespace="default")
    begin = time.monotonic()
    _settle(client, [one.key for one in applied])
    return time.monotonic() - begin


def _object(kind: str, name: str, spec: dict[str, Any]) -> Resource:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _swarm(workers: int) -> Resource:
    spec = {"replicas": workers, "agent": {"runtime": "mock"}, "provider": {"local": {}}}
    return _object("Swarm", SWARM, spec)


def _prompt(name: str) -> Resource:
    return _object("Task", name, {"target": {"swarm": SWARM}, "prompt": "Say hello."})


def _project(count: int, url: str) -> Resource:
    tasks = [{"name": f"task-{n}", "prompt": "Write a file."} for n in range(count)]
    spec = {
        "repository": {"url": url},
        "workers": [{"swarm": SWARM}],
        "tasks": tasks,
        "integration": {"verify": []},
    }
    return _object("Project", SWARM, spec)
