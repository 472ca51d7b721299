"""The store on a cluster when answers, watch events and deletions come in an awkward order.

The server is a stand-in: what it says and when is the test's choice.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from controller.store import kube, kube_references
from controller.store.base import AlreadyExists, Change, Conflict, Key, NotFound, StoreUnavailable
from controller.store.kube import KubeStore
from controller.store.kube_api import Api
from controller.store.kube_rest import NotServed, Rejected, refusal
from tests.store.helpers import until

A = Key("Task", "default", "a")
SECRET = Key("Secret", "default", "s")
NAMED = {"prompt": "x", "env": [{"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}


class Server:
    """An API server's objects; ``slow`` answers wait for the test."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.versions = itertools.count(1)
        self.uids = itertools.count(1)
        self.slow: dict[str, asyncio.Event] = {}
        self.fails: dict[str, Exception] = {}
        self.log: list[str] = []

    def put(self, key: Key, spec: Any = None, **metadata: Any) -> dict[str, Any]:
        """As another client writes."""
        known = self.objects.get(key)
        uid = known["metadata"]["uid"] if known else f"u{next(self.uids)}"
        meta = {"name": key.name, "namespace": key.namespace, "uid": uid, **metadata}
        meta["resourceVersion"] = str(next(self.versions))
        self.objects[key] = {"kind": key.kind, "metadata": meta, "spec": spec or {"prompt": "x"}}
        return copy.deepcopy(self.objects[key])

    async def _answer(self, what: str) -> None:
        self.log.append(what)
        await asyncio.sleep(0)
        verb = what.partition(" ")[0]
        for name in (what, verb):
            if name in self.slow:
                await self.slow[name].wait()
        for name in (what, verb):
            if name in self.fails:
                raise self.fails[name]

    async def get(self, key: Key) -> dict[str, Any]:
        found = copy.deepcopy(self.objects.get(key))
        await self._answer(f"get {key}")
        if found is None:
            raise NotFound(f"{key} not found")
        return found

    async def list(self, kind: str, namespace: str | None) -> AsyncIterator[dict[str, Any]]:
        found = copy.deepcopy([o for k, o in self.objects.items() if k.kind == kind])
        await self._answer(f"list {kind}")
        for obj in found:
            yield obj

    async def create(self, obj: dict[str, Any], check: Callable[[], None]) -> dict[str, Any]:
        check()
        key = Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        if key in self.objects:
            raise AlreadyExists(f"{key} exists")
        found = self.put(key, obj["spec"])
        await self._answer(f"create {key}")
        return found

    async def patch(
        self, key: Key, operations: Any, subresource: str, check: Callable[[], None]
    ) -> dict[str, Any]:
        check()
        known = self.objects.get(key)
        if known is None:
            raise NotFound(f"{key} not found")
        for operation in operations[1:]:
            if operation["op"] == "remove" and operation["path"].strip("/") not in known:
                raise Rejected("remove operation does not apply")
        if operations[0]["value"] != known["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        changed = {o["path"].strip("/"): o.get("value") for o in operations[1:]}
        self.objects[key] = {**known, **changed}
        self.objects[key]["metadata"] = {
            **known["metadata"],
            "resourceVersion": str(next(self.versions)),
        }
        found = copy.deepcopy(self.objects[key])
        await self._answer(f"patch {key}")
        return found

    async def delete(self, key: Key, uid: str | None, check: Callable[[], None]) -> dict[str, Any]:
        check()
        gone = self.objects.pop(key, None)
        if gone is None:
            raise NotFound(f"{key} not found")
        await self._answer(f"delete {key}")
        return {"kind": "Status", "details": {"uid": gone["metadata"]["uid"]}}


def drive(test: Callable[[Server, KubeStore], Awaitable[None]]) -> list[Change]:
    """Run a test on a store that has read what there is; the changes that it told."""
    changes: list[Change] = []

    async def run() -> None:
        server = Server()
        store = KubeStore(cast(Api, server), None)
        store.subscribe(changes.extend)
        store.start()
        try:
            await asyncio.wait_for(cast(Any, test(server, store)), 10)
        finally:
            await store.close()

    asyncio.run(run())
    return changes


def test_a_late_deletion_of_a_former_object_of_the_name() -> None:
    """The new object stays, and with it the Secret that it names."""

    async def test(server: Server, store: KubeStore) -> None:
        server.put(SECRET)
        old = server.put(A)
        store.feed(old)
        del server.objects[A]
        created = await store.create({"kind": "Task", "metadata": meta(), "spec": NAMED})
        assert created["metadata"]["uid"] != old["metadata"]["uid"]
        store.feed(old, deleted=True)
        assert store.get(A) is not None
        assert store.get(SECRET) is not None

    drive(test)


def test_a_late_deletion_while_the_new_object_is_held_back() -> None:
    async def test(server: Server, store: KubeStore) -> None:
        old = server.put(A)
        store.feed(old)
        server.put(SECRET)
        del server.objects[A]
        server.slow["get"] = asyncio.Event()
        store.feed(server.put(A, NAMED))
        store.feed(old, deleted=True)
        assert store.get(A) is None
        server.slow["get"].set()
        await until(lambda: store.get(A) is not None)
        assert store.get(SECRET) is not None

    drive(test)


def test_an_old_event_does_not_drop_what_a_newer_version_names() -> None:
    async def test(server: Server, store: KubeStore) -> None:
        server.put(SECRET)
        before = server.put(A)
        store.feed(before)
        stored = await store.update({**before, "spec": NAMED})
        assert store.get(SECRET) is not None
        store.feed(before)
        assert store.get(SECRET) is not None, "not even for a moment"
        store.feed(stored)
        assert store.get(SECRET) is not None

    drive(test)


def test_who_changes_a_secret_and_its_user_together_meets_no_old_one() -> None:
    async def test(server: Server, store: KubeStore) -> None:
        old = server.put(SECRET)
        store.feed(server.put(A, NAMED, generation=1))
        await until(lambda: store.get(A) is not None)
        for name, generation in ((A, 2), (A._replace(name="b"), 1)):
            new = server.put(SECRET)
            assert new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
            store.feed(wanted := server.put(name, NAMED, generation=generation))
            await until(lambda name=name, wanted=wanted: store.get(name) == wanted)
            assert store.get(SECRET) == new
        told = list(server.log)
        store.feed(server.put(A, NAMED, generation=2, labels={"a": "b"}))
        await until(lambda: "labels" in cast(Any, store.get(A))["metadata"])
        assert server.log == told, "only a new spec asks for another look"

    changes = drive(test)
    assert SECRET in {change.key for change in changes}, "others who name it hear of it"


def test_many_that_name_the_same_share_its_reads() -> None:
    async def test(server: Server, store: KubeStore) -> None:
        server.put(SECRET)
        for number in range(100):
            store.feed(server.put(A._replace(name=f"n{number}"), NAMED))
            await asyncio.sleep(0)
        await until(lambda: len(store.list("Task")) == 100)
        assert server.log.count("get secret/s") < 50

    drive(test)


def test_a_deletion_whose_answer_comes_after_the_next_object() -> None:
    """Only the object that was deleted goes."""

    async def test(server: Server, store: KubeStore) -> None:
        old = server.put(A)
        store.feed(old)
        server.slow["delete"] = asyncio.Event()
        deleting = asyncio.ensure_future(store.delete(A))
        await until(lambda: A not in server.objects)
        new = server.put(A)
        store.feed(old, deleted=True)
        store.feed(new)
        server.slow["delete"].set()
        await deleting
        found = store.get(A)
        assert found is not None and found["metadata"]["uid"] == new["metadata"]["uid"]
        assert store._cache.is_news(
            {**new, "metadata": {**new["metadata"], "resourceVersion": "99"}}
        )

    drive(test)


def test_a_held_object_that_is_gone_is_let_go_by_a_list() -> None:
    async def test(server: Server, store: KubeStore) -> None:
        server.slow["get secret/s"] = asyncio.Event()
        store.feed(server.put(A, NAMED))
        del server.objects[A]
        await store.sync(["Task"])
        server.slow["get secret/s"].set()
        await asyncio.sleep(0.05)
        assert store.get(A) is None

    drive(test)


def test_a_kind_that_is_not_served_is_no_deletion() -> None:
    """A server that begins, or a CRD that is away, says 404 of everything."""
    nothing = refusal(404, {"message": "404 page not found"})
    assert isinstance(nothing, NotServed)
    assert isinstance(refusal(404, {"message": "m", "details": {"name": "a"}}), NotFound)

    async def test(server: Server, store: KubeStore) -> None:
        store.feed(server.put(A))
        server.fails["get"] = nothing
        other = server.put(A)  # so that ours is an old version
        with pytest.raises(StoreUnavailable):
            await store.update_status({**cast(Any, store.get(A)), "status": {"phase": "Pending"}})
        assert store.get(A) is not None
        del server.fails["get"]
        store.feed(other)
        assert store.get(A) == other

    assert not any(change.deleted for change in drive(test))


def test_a_patch_of_what_is_not_there_any_more_is_a_conflict() -> None:
    """The server applies it before it compares versions, and says 422."""

    async def test(server: Server, store: KubeStore) -> None:
        before = server.put(A)
        store.feed({**before, "data": {"x": "y"}})
        server.put(A)
        with pytest.raises(Conflict):
            await store.update(before)
        known = cast(Any, store.get(A))
        server.fails["patch"] = Rejected("it is wrong")
        with pytest.raises((Rejected, Conflict)):
            await store.update_status({**known, "status": {}})

    drive(test)


def test_what_nobody_names_any_more_is_not_kept() -> None:
    async def test(server: Server, store: KubeStore) -> None:
        server.put(SECRET)
        server.slow["get secret/s"] = asyncio.Event()
        obj = server.put(A, NAMED)
        store.feed(obj)
        store.feed(obj, deleted=True)
        server.slow["get secret/s"].set()
        await asyncio.sleep(0.05)
        assert not store._references._found

    drive(test)


def test_a_secret_that_cannot_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "READ_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(kube_references, "POLL_SECONDS", 0.01)

    async def test(server: Server, store: KubeStore) -> None:
        server.put(SECRET)
        server.fails["get secret/s"] = StoreUnavailable("away")
        store.feed(server.put(A, NAMED))
        await asyncio.sleep(0.05)
        assert store.get(A) is None, "nothing is decided on what was not read"
        del server.fails["get secret/s"]
        await until(lambda: store.get(A) is not None)
        del server.objects[SECRET]
        await until(lambda: store.get(SECRET) is None)

    drive(test)


def test_nothing_is_written_once_the_lease_is_lost() -> None:
    async def test(server: Server, _: KubeStore) -> None:
        lost = StoreUnavailable("lost")

        def fence() -> None:
            raise lost

        store = KubeStore(cast(Api, server), None, fence)
        obj = server.put(A)
        store.feed(obj)
        for write in (
            store.create({"kind": "Task", "metadata": meta("b"), "spec": {}}),
            store.update({**obj, "spec": {}}),
            store.update_status({**obj, "status": {}}),
            store.delete(A),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await write
            assert caught.value is lost
        assert not server.log

    drive(test)


def meta(name: str = "a") -> dict[str, Any]:
    return {"name": name, "namespace": "default"}
