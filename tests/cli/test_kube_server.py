"""Requests to an API server: what is tried again, what is not, and how failures read."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import kube_config
from cli.kube_client import KubeClient
from controller.store.base import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Key,
    NotFound,
    Resource,
    StoreError,
    StoreUnavailable,
)
from tests.cli.apiserver import Answer, ApiServer, Asked, Reply, status
from tests.cli.conftest import Run
from tests.cli.samples import prompt

KEY = Key("Task", "default", "hello")
OBJECT = {**prompt("hello"), "metadata": {"name": "hello", "namespace": "default", "uid": "u",
          "resourceVersion": "7", "managedFields": []}}  # fmt: skip

NEW = {**prompt("hello"), "metadata": {"name": "hello", "namespace": "default"}}


def client_of(server: ApiServer, folder: Path, **user: str) -> KubeClient:
    """A client of a stand-in."""
    return KubeClient(kube_config.place(str(server.kubeconfig(folder, **user)), None), "default")


def sequence(*replies: Reply) -> Answer:
    """These answers, the last one for ever."""
    left = list(replies)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


def test_what_passes_is_waited_for(tmp_path: Path) -> None:
    answers = sequence(status(429, "later"), status(503, "starting"), Reply(OBJECT))
    with ApiServer(answers) as server:
        found = client_of(server, tmp_path).get(KEY)
        assert found is not None
        assert "managedFields" not in found["metadata"]
        assert len(server.asked) == 3
        assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_a_creation_that_may_have_been_done_is_not_repeated(tmp_path: Path) -> None:
    with ApiServer(sequence(status(500, "etcd is slow"))) as server:
        with pytest.raises(StoreUnavailable, match="etcd is slow"):
            client_of(server, tmp_path).create(NEW)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (status(403, "tasks is forbidden", "Forbidden"), Forbidden, "tasks is forbidden"),
        (status(401, "Unauthorized"), StoreUnavailable, "does not accept the credentials"),
        (Reply(b"404 page not found\n", 404), StoreUnavailable, "does not know Codeswarm's kinds"),
        (status(422, "is invalid", "Invalid"), StoreError, "is invalid"),
    ],
)
def test_refusals(tmp_path: Path, reply: Reply, error: type[StoreError], text: str) -> None:
    with ApiServer(sequence(reply)) as server, pytest.raises(error, match=text):
        client_of(server, tmp_path).get(KEY)


def test_taken_names_and_conflicts(tmp_path: Path) -> None:
    taken, changed = status(409, "taken", "AlreadyExists"), status(409, "changed", "Conflict")
    with ApiServer(sequence(taken, Reply(OBJECT), changed)) as server:
        client = client_of(server, tmp_path)
        with pytest.raises(AlreadyExists):
            client.create(NEW)
        assert client.get(KEY) is not None
        with pytest.raises(NotFound):
            client.delete(KEY, uid="another")


def test_an_update_is_decided_again_on_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked) -> Reply:
        puts = sum(one.method == "PUT" for one in server.asked)
        version = str(7 + puts)
        current = {**OBJECT, "metadata": {**OBJECT["metadata"], "resourceVersion": version}}
        if asked.method == "PUT" and puts < 3:
            return status(409, "changed", "Conflict")
        return Reply(current)

    with ApiServer(answer) as server:
        seen: list[str] = []

        def change(obj: Resource) -> None:
            seen.append(obj["metadata"]["resourceVersion"])
            obj["spec"]["priority"] = 5

        client_of(server, tmp_path).update(KEY, change)
        assert seen == ["7", "8", "9"]
        last = server.asked[-1]
        assert last.body["metadata"]["resourceVersion"] == "9"
        assert last.body["spec"]["priority"] == 5
        assert last.query["fieldValidation"] == "Strict"

    monkeypatch.setattr("cli.kube_client._UPDATE_ATTEMPTS", 5)

    def always_changed(asked: Asked) -> Reply:
        return status(409, "changed", "Conflict") if asked.method == "PUT" else Reply(OBJECT)

    with ApiServer(always_changed) as server, pytest.raises(Conflict):
        client_of(server, tmp_path).update(KEY, lambda obj: None)


@pytest.mark.parametrize("name", ["..", ".", "", "a/../b", "UPPER", "x?watch=1"])
def test_names_that_would_be_other_paths_never_leave(tmp_path: Path, name: str) -> None:
    with ApiServer(sequence(Reply(OBJECT))) as server:
        client = client_of(server, tmp_path)
        assert client.get(Key("Task", "default", name)) is None
        with pytest.raises(NotFound):
            client.delete(Key("Task", "default", name))
        assert server.asked == []


def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with ApiServer(sequence(Reply())) as server:
        client = client_of(server, tmp_path)
        url = server.url
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=f"{url} does not answer: Connection refused"):
        client.get(KEY)
    assert time.monotonic() - began < 2


def test_one_that_answered_before_is_waited_for(tmp_path: Path) -> None:
    """The server goes away in the middle and comes back on the same address."""
    with ApiServer(sequence(Reply(OBJECT))) as server:
        client = client_of(server, tmp_path)
        port = int(server.url.rpartition(":")[2])
        assert client.get(KEY) is not None
    client.server._api().rest_client.pool_manager.clear()  # its kept connections are dead
    found: list[Resource | None] = []
    reading = threading.Thread(target=lambda: found.append(client.get(KEY)))
    reading.start()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with ApiServer(sequence(Reply(OBJECT)), port):
        reading.join(20)
    assert found
    assert found[0] is not None


def test_pages_of_a_list_and_one_that_took_too_long(tmp_path: Path) -> None:
    def page(name: str, token: str) -> Reply:
        item = {"metadata": {"name": name, "namespace": "default", "uid": name,
                             "resourceVersion": "1"}, "spec": {}}  # fmt: skip
        return Reply({"metadata": {"resourceVersion": "9", "continue": token}, "items": [item]})

    answers = [
        page("b", "more"),
        status(410, "too old", "Expired"),
        page("b", "more"),
        page("a", ""),
    ]
    with ApiServer(sequence(*answers)) as server:
        found = client_of(server, tmp_path).list("Task", "default", {"x": "y", "a": "b"})
        assert [obj["metadata"]["name"] for obj in found] == ["a", "b"]
        assert {obj["kind"] for obj in found} == {"Task"}
        assert server.asked[0].query["labelSelector"] == "x=y,a=b"
        assert server.asked[1].query["continue"] == "more"


def test_events_of_another_groups_kind_are_left_out(tmp_path: Path) -> None:
    about = {"kind": "Task", "namespace": "default", "name": "hello"}
    ours = {**about, "apiVersion": "codeswarm.dev/v1alpha1"}
    items = [
        {"involvedObject": {**about, "apiVersion": "tekton.dev/v1"}, "reason": "Other"},
        {"involvedObject": ours, "reason": "Second", "type": "Warning", "message": "m",
         "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-03T00:00:00Z",
         "count": 3},
        {"involvedObject": ours, "reason": "First", "eventTime": "2026-01-02T00:00:00.000000Z"},
    ]  # fmt: skip
    with ApiServer(
        sequence(Reply({"items": items}), status(403, "no"), Reply({"items": []}))
    ) as server:
        client = client_of(server, tmp_path)
        events = client.events(KEY)
        assert [event.reason for event in events] == ["First", "Second"]
        assert (events[1].count, events[1].type, events[1].message) == (3, "Warning", "m")
        selector = server.asked[0].query["fieldSelector"]
        assert selector == "involvedObject.kind=Task,involvedObject.name=hello"
        assert client.events(KEY) == []
        client.events_of({"kind": KEY.kind, "metadata": {"name": KEY.name, "uid": "u"}})
        assert server.asked[-1].query["fieldSelector"].endswith(",involvedObject.uid=u")


def test_a_namespace_that_cannot_be_listed_still_has_its_not_found(tmp_path: Path) -> None:
    from cli.selectors import not_found

    with ApiServer(sequence(status(403, "no", "Forbidden"))) as server:
        error = not_found(client_of(server, tmp_path), KEY)
        assert str(error) == 'task "hello" not found in namespace "default"'


def test_a_hostile_server_does_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    with ApiServer(sequence(Reply(b"\x1b]0;pwned\x07 go away", 418))) as server:
        result = run("get", "swarms", "--kubeconfig", str(server.kubeconfig(tmp_path)))
        assert result.exit_code == 1
        assert (
            result.stderr
            == "error: \N{REPLACEMENT CHARACTER}]0;pwned\N{REPLACEMENT CHARACTER} go away\n"
        )


# --- the controller's Lease ---------------------------------------------------------------------


def lease(**spec: str | int) -> Reply:
    """A Lease as the controller writes it."""
    metadata = {"name": "codeswarm-controller", "annotations": {"codeswarm.dev/epoch": "12"}}
    return Reply({"kind": "Lease", "metadata": metadata, "spec": spec},
                 headers={"Date": "Thu, 01 Jan 2026 00:01:00 GMT"})  # fmt: skip


FRESH = {"holderIdentity": "pod-1", "renewTime": "2026-01-01T00:00:50.000000Z",
         "leaseDurationSeconds": 15}  # fmt: skip


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the tester's environment."""
    for name in ("CODESWARM_CONTROLLER_NAMESPACE", "CODESWARM_API_URL", "CODESWARM_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return None


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("reply", "running", "text"),
    [
        (lease(**FRESH), True, "pod-1 in namespace codeswarm, epoch 12"),
        (lease(**{**FRESH, "renewTime": "2025-12-31T23:59:00Z"}), False, "has not renewed"),
        (lease(**{**FRESH, "holderIdentity": ""}), False, "given up"),
        (lease(holderIdentity="x\x1b[31m"), False, "x\N{REPLACEMENT CHARACTER}[31m has not"),
        (status(403, "no", "Forbidden"), True, "not known"),
        (status(404, "none", "NotFound", name="x"), False, "there is no Lease"),
    ],
)
def test_whether_a_controller_runs(tmp_path: Path, reply: Reply, running: bool, text: str) -> None:
    """Judged by the server's clock: it is 1 January, a minute past midnight."""
    with ApiServer(sequence(reply)) as server:
        client = client_of(server, tmp_path)
        state = client.controller()
        assert (state.running, text in state.detail) == (running, True), state
        said: list[str] = []
        client.ensure_controller(said.append)
        client.ensure_controller(said.append)
        assert len(said) == (0 if running else 1)


@pytest.mark.usefixtures("no_variables")
def test_a_controller_outside_the_cluster_is_found_where_it_serves(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        if "/namespaces/default/" in asked.path:
            return lease(**FRESH)
        return status(404, "none", "NotFound", name="x")

    with ApiServer(answer) as server:
        assert client_of(server, tmp_path).controller().detail.startswith("pod-1 in namespace def")
