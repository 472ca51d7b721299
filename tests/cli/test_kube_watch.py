"""Watches of a cluster: nothing missed, nothing told twice, and an end when one is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from cli import kube_watch
from cli.kube_watch import KubeWatch
from controller.store.base import Change, Forbidden, Key, StoreUnavailable
from tests.cli.apiserver import ApiServer, Asked, Reply, status
from tests.cli.test_kube_server import client_of

DEADLINE = 10.0


def task(name: str, version: int, uid: str = "", namespace: str = "default") -> dict[str, Any]:
    """A Task in some version."""
    metadata = {"name": name, "namespace": namespace, "uid": uid or name,
                "resourceVersion": str(version)}  # fmt: skip
    return {"apiVersion": "codeswarm.dev/v1alpha1", "kind": "Task", "metadata": metadata}


class Tasks:
    """A server of Tasks: lists what there is, streams what a test says."""

    def __init__(self) -> None:
        self.here: dict[str, dict[str, Any]] = {}
        self.version = 10
        self.streams: Queue[Queue[dict[str, Any] | None]] = Queue()
        self.watched: list[dict[str, str]] = []
        self.refuse: list[Reply] = []
        """Answers to the next requests for a stream."""
        self.server = ApiServer(self._answer)

    def put(self, name: str, uid: str = "") -> dict[str, Any]:
        """An object is made or changed; its event is returned."""
        self.version += 1
        known = name in self.here
        self.here[name] = task(name, self.version, uid)
        return {"type": "MODIFIED" if known else "ADDED", "object": self.here[name]}

    def drop(self, name: str) -> dict[str, Any]:
        """An object goes; its event is returned."""
        self.version += 1
        gone = self.here.pop(name)
        gone["metadata"]["resourceVersion"] = str(self.version)
        return {"type": "DELETED", "object": gone}

    def stream(self) -> Queue[dict[str, Any] | None]:
        """The next stream that the client opens; None ends it."""
        return self.streams.get(timeout=DEADLINE)

    def _answer(self, asked: Asked) -> Reply:
        if "watch" in asked.query:
            self.watched.append(asked.query)
            if self.refuse:
                return self.refuse.pop(0)
            queue: Queue[dict[str, Any] | None] = Queue()
            self.streams.put(queue)
            return Reply(self._lines(queue))
        if asked.path.endswith("/tasks"):
            meta = {"resourceVersion": str(self.version)}
            return Reply({"metadata": meta, "items": list(self.here.values())})
        name = asked.path.rpartition("/")[2]
        found = self.here.get(name)
        return Reply(found) if found else status(404, "none", "NotFound", name=name)

    def _lines(self, queue: Queue[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
        while not self.server.closing.is_set():
            try:
                line = queue.get(timeout=0.05)
            except Exception:
                continue
            if line is None:
                return
            yield line


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    """A server with one Task."""
    made = Tasks()
    made.put("old")
    with made.server:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses before a stream is begun anew."""
    monkeypatch.setattr(kube_watch, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(kube_watch, "LAST_PAUSE", 0.05)


def until(watch: KubeWatch, wanted: Callable[[Sequence[Change]], bool]) -> list[Change]:
    """What a watch tells until that is enough."""
    seen: list[Change] = []
    deadline = time.monotonic() + DEADLINE
    while not wanted(seen):
        assert time.monotonic() < deadline, seen
        seen += watch.wait(0.2)
    return seen


def names(changes: Sequence[Change]) -> list[tuple[str, bool]]:
    """Name, and whether it is gone, of each."""
    return [(change.key.name, change.deleted) for change in changes]


def threads() -> list[str]:
    """Streams that are read now."""
    return [t.name for t in threading.enumerate() if t.name.startswith("watch ")]


def test_it_goes_on_where_a_list_left_off(tasks: Tasks, tmp_path: Path) -> None:
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        version = tasks.version
        event = tasks.put("new")  # after the list, before the stream
        assert watch.wait(0) == ()
        stream = tasks.stream()
        assert tasks.watched[0]["resourceVersion"] == str(version)
        stream.put(event)
        assert names(until(watch, bool)) == [("new", False)]
        stream.put(tasks.put("old"))
        stream.put(tasks.drop("new"))
        assert set(names(until(watch, lambda c: len(c) > 1))) == {("old", False), ("new", True)}
    assert threads() == []


def test_nobody_waits_nothing_is_asked(tasks: Tasks, tmp_path: Path) -> None:
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        assert watch.wait(0.01) == ()
        client.get(Key("Task", "default", "old"))
    assert len(tasks.server.asked) == 1
    client.get(Key("Task", "default", "old"))  # none is told any more


def test_what_happens_between_a_look_and_the_stream(tasks: Tasks, tmp_path: Path) -> None:
    """A single object was read: everything is listed before the stream, and compared."""
    client = client_of(tasks.server, tmp_path)
    for name in ("kept", "changed", "gone"):
        tasks.put(name)
    with closing(client.watch()) as watch:
        for name in ("kept", "changed", "gone", "never"):
            client.get(Key("Task", "default", name))
        tasks.put("changed")
        tasks.drop("gone")
        seen = until(watch, lambda changes: ("gone", True) in names(changes))
        # What was not looked at is news as well.
        assert set(names(seen)) == {("changed", False), ("gone", True), ("old", False)}
        tasks.stream().put(tasks.put("never"))
        assert names(until(watch, bool)) == [("never", False)]


def test_what_was_read_meanwhile_is_no_news(tasks: Tasks, tmp_path: Path) -> None:
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        watch.wait(0)
        stream = tasks.stream()
        event = tasks.put("old")
        client.get(Key("Task", "default", "old"))
        stream.put(event)
        stream.put(tasks.put("new"))
        assert names(until(watch, bool)) == [("new", False)]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["event", "status"])
def test_a_version_that_is_too_old(tasks: Tasks, tmp_path: Path, how: str) -> None:
    """Compacted: everything is read again, what is gone meanwhile is noticed."""
    client = client_of(tasks.server, tmp_path)
    tasks.put("gone")
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        gone = status(410, "too old", "Expired")
        if how == "status":
            tasks.refuse.append(gone)
        watch.wait(0)
        tasks.drop("gone")
        tasks.put("new")
        if how == "event":
            tasks.stream().put({"type": "ERROR", "object": gone.body})
        seen = until(watch, lambda changes: len(changes) > 1)
        assert set(names(seen)) == {("gone", True), ("new", False)}
        tasks.stream().put(tasks.put("old"))
        assert names(until(watch, bool)) == [("old", False)]


@pytest.mark.usefixtures("quick")
def test_a_stream_that_breaks_off_goes_on_where_it_was(tasks: Tasks, tmp_path: Path) -> None:
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        watch.wait(0)
        stream = tasks.stream()
        stream.put({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "500"}}})
        stream.put(None)
        stream = tasks.stream()
        assert tasks.watched[1]["resourceVersion"] == "500"
        stream.put({"no": "event"})
        tasks.refuse += [status(503, "starting"), status(429, "busy")]
        stream = tasks.stream()
        tasks.version = 600
        stream.put(tasks.put("new"))
        assert names(until(watch, bool)) == [("new", False)]


def test_another_object_of_that_name(tasks: Tasks, tmp_path: Path) -> None:
    """Deleted and made again: the old one's end does not hide the new one."""
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        watch.wait(0)
        stream = tasks.stream()
        stream.put(tasks.drop("old"))
        stream.put(tasks.put("old", uid="second"))
        seen = until(watch, lambda changes: any(c.uid == "second" for c in changes))
        assert not seen[-1].deleted


def test_no_right_to_watch_is_told(tasks: Tasks, tmp_path: Path) -> None:
    tasks.refuse.append(status(403, "tasks is forbidden", "Forbidden"))
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        with pytest.raises(Forbidden, match="tasks is forbidden"):
            until(watch, bool)


@pytest.mark.usefixtures("quick")
def test_a_server_that_stays_away_is_told(
    tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_watch, "GIVE_UP_SECONDS", 0.2)
    tasks.refuse += [status(503, "away")] * 1000
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        with pytest.raises(StoreUnavailable, match="away"):
            until(watch, bool)


def test_one_stream_is_enough_where_it_covers_the_rest(tasks: Tasks, tmp_path: Path) -> None:
    client = client_of(tasks.server, tmp_path)
    with closing(client.watch()) as watch:
        client.list("Task", "default")
        client.list("Task", None)
        client.list("Task", "other")
        watch.wait(0)
        tasks.stream()
        assert threads() == ["watch Task"]


def test_closing_ends_streams_at_once(tasks: Tasks, tmp_path: Path) -> None:
    client = client_of(tasks.server, tmp_path)
    watch = client.watch()
    client.list("Task", "default")
    watch.wait(0)
    tasks.stream()
    began = time.monotonic()
    client.close()
    assert threads() == []
    assert time.monotonic() - began < 2
    watch.close()  # again does no harm
