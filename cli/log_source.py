"""What ``logs`` reads: the transcripts and turns of a task, a project, a worker or a swarm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import selectors
from cli.errors import CliError
from cli.follow import Line
from cli.transcript_files import order_of
from controller.domain.machine_logs import is_machine
from controller.store.base import Key

if TYPE_CHECKING:
    from cli.client import Client, Transcript
    from controller.store.base import Resource

FINISHED = frozenset({"Succeeded", "Failed", "Cancelled"})
PARENT = "codeswarm.dev/parent"


@dataclass(slots=True)
class Source:
    """Where lines come from; asked again, it knows what has been added since."""

    transcripts: Callable[[], Sequence[Transcript]]
    accept: Callable[[Line], bool]
    finished: Callable[[], bool]
    label: Callable[[Line], str]
    """What stands before a line where several sources are shown; empty for one."""
    about: str = ""


def worker_of(job: str) -> str:
    """``builders/0`` of ``builders-1a2b3c4d-0-7``; a machine's id as it is."""
    if is_machine(job):
        return job
    prefix, index, _ = order_of(job)
    return f"{prefix.rsplit('-', 1)[0]}/{index}"


def word_of(client: Client, namespace: str, words: Sequence[str]) -> str:
    """What was named as ``KIND/NAME``, ``SWARM/INDEX``, ``KIND NAME`` or ``NAME``, as one word.

    Raises: CliError.
    """
    if len(words) == 1 and "/" in words[0]:
        return words[0]
    return str(selectors.pick(client, namespace, words))


def of(client: Client, namespace: str, word: str, attempt: int | None) -> Source:
    """The source that ``task/NAME``, ``project/NAME``, ``swarm/NAME`` or ``SWARM/INDEX`` means.

    A bare name is a task's. Raises: CliError.
    """
    first, slash, rest = word.partition("/")
    if not slash:
        return of_tasks(client, namespace, Key("Task", namespace, word), attempt)
    if first == "worker":
        return of_worker(client, namespace, rest)
    if not selectors.is_kind(first):
        if rest.isdigit():
            return of_worker(client, namespace, word)
        if is_machine(rest):
            return _of_jobs(client, namespace, first, machine=rest)
    kind, name = selectors.slashed(word)
    if kind.kind == "Swarm":
        return of_swarm(client, namespace, name)
    if kind.kind in ("Task", "Project"):
        return of_tasks(client, namespace, Key(kind.kind, namespace, name), attempt)
    raise CliError(
        f"a {kind.singular} has no logs: task/NAME, project/NAME, swarm/NAME, SWARM/INDEX"
    )


def of_tasks(client: Client, namespace: str, key: Key, attempt: int | None) -> Source:
    """A task with the parts of an expanded prompt, or all tasks of a project."""
    top = selectors.find(client, key)
    names: dict[str, str] = {}
    found: list[Resource] = []
    uid = top["metadata"]["uid"]

    def refresh() -> None:
        found[:] = _tasks(client, key)
        names.update((task["metadata"]["uid"], task["metadata"]["name"]) for task in found)

    def transcripts() -> Sequence[Transcript]:
        refresh()
        jobs = _jobs(found)
        return client.transcripts(namespace, jobs=jobs) if jobs else []

    def accept(line: Line) -> bool:
        task, _, number = line.injection.rpartition(".")
        return task in names and (attempt is None or number == str(attempt))

    def finished() -> bool:
        now = client.get(key)
        if now is None or now["metadata"]["uid"] != uid:
            return True
        if key.kind == "Project":
            return (now.get("status") or {}).get("phase") in ("Completed", "Failed")
        refresh()
        return all(_phase(task) in FINISHED for task in found)

    def label(line: Line) -> str:
        if len(names) < 2:
            return ""
        return names.get(line.injection.rpartition(".")[0], "")

    refresh()
    _check_attempt(top, attempt)
    return Source(transcripts, accept, finished, label, str(key))


def _check_attempt(task: Resource, attempt: int | None) -> None:
    if attempt is None:
        return
    if task["kind"] != "Task":
        raise CliError("--attempt belongs to one task: logs task/NAME --attempt N")
    numbers = [a["number"] for a in _attempts(task)]
    if attempt not in numbers:
        known = ", ".join(map(str, numbers)) or "none yet"
        raise CliError(f'task "{task["metadata"]["name"]}" has no attempt {attempt} (has: {known})')


def _tasks(client: Client, key: Key) -> list[Resource]:
    if key.kind == "Project":
        return [
            t for t in client.list("Task", key.namespace) if t["spec"].get("project") == key.name
        ]
    task = client.get(key)
    if task is None:
        return []
    parts = (task.get("status") or {}).get("targets")
    return [task, *(client.list("Task", key.namespace, {PARENT: key.name}) if parts else [])]


def _phase(obj: Resource) -> str:
    return str((obj.get("status") or {}).get("phase") or "")


def _attempts(task: Resource) -> list[dict[str, Any]]:
    return list((task.get("status") or {}).get("attempts") or [])


def _jobs(tasks: Sequence[Resource]) -> list[str]:
    return sorted({a["job"] for task in tasks for a in _attempts(task) if a.get("job")})


def of_worker(client: Client, namespace: str, word: str) -> Source:
    """A worker ``SWARM/INDEX``, all its incarnations."""
    swarm, _, index = word.partition("/")
    if not index.isdigit():
        raise CliError(f'"{word}" is no worker: SWARM/INDEX, such as builders/0')
    return _of_jobs(client, namespace, swarm, index=int(index))


def of_swarm(client: Client, namespace: str, name: str) -> Source:
    """All workers of a swarm, and the set-up logs of its machines."""
    return _of_jobs(client, namespace, name)


def _of_jobs(
    client: Client, namespace: str, swarm: str, *, index: int | None = None, machine: str = ""
) -> Source:
    key = Key("Swarm", namespace, swarm)
    names: dict[str, str] = {}

    def transcripts() -> Sequence[Transcript]:
        found = client.transcripts(namespace, swarm=swarm)
        return [t for t in found if wanted(t.job)]

    def wanted(job: str) -> bool:
        if is_machine(job):
            return index is None and machine in ("", job)
        return not machine and index in (None, order_of(job)[1])

    def task_name(line: Line) -> str:
        uid = line.injection.rpartition(".")[0]
        if uid and uid not in names:
            names[uid] = ""
            for task in client.list("Task", namespace):
                names[task["metadata"]["uid"]] = task["metadata"]["name"]
        return names.get(uid, "")

    def label(line: Line) -> str:
        worker = worker_of(line.job) if index is None and not machine else ""
        return " ".join(part for part in (worker, task_name(line)) if part)

    if client.get(key) is None and not transcripts():
        raise selectors.not_found(client, key)
    if client.get(key) is not None and index is not None and not transcripts():
        workers = (selectors.find(client, key).get("status") or {}).get("workers") or []
        if all(worker.get("index") != index for worker in workers):
            raise CliError(f'swarm "{swarm}" has no worker {index}')
    if machine and not transcripts():
        raise CliError(f'there is no set-up log of {machine} of swarm "{swarm}" (yet)')
    about = f"swarm/{swarm}" if index is None and not machine else f"{swarm}/{machine or index}"
    return Source(transcripts, lambda _: True, lambda: client.get(key) is None, label, about)
