"""The watch cache: what is newest wins, in whatever order it is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.store.base import Change, Key, is_newer
from controller.store.kube_cache import REMEMBERED, Cache

KEY = Key("Task", "default", "a")


def task(version: int, uid: str = "u1", name: str = "a", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "codeswarm.dev/v1alpha1",
        "kind": "Task",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid,
            "resourceVersion": str(version),
            **metadata,
        },
        "spec": {"prompt": f"version {version}"},
    }


def test_an_object_is_a_copy() -> None:
    cache = Cache()
    given_ = task(1, labels={"a": "b"}, managedFields=[{"manager": "kubectl"}])
    assert cache.put(given_) == [Change(KEY, "u1")]
    found = cache.get(KEY)
    assert found is not None and "managedFields" not in found["metadata"]
    found["spec"]["prompt"] = "changed"
    again = cache.get(KEY)
    assert again is not None and again["spec"]["prompt"] == "version 1"


def test_an_older_version_is_no_news() -> None:
    cache = Cache()
    cache.put(task(10))
    assert cache.put(task(9)) == []
    assert cache.put(task(10)) == []
    assert cache.version(KEY) == "10"


def test_another_object_of_the_name_takes_its_place() -> None:
    cache = Cache()
    cache.put(task(10))
    assert cache.put(task(12, "u2")) == [Change(KEY, "u1", deleted=True), Change(KEY, "u2")]
    assert cache.put(task(11)) == [], "the first one is gone"
    assert cache.uid(KEY) == "u2"


def test_what_is_gone_does_not_come_back() -> None:
    cache = Cache()
    cache.put(task(10))
    assert cache.remove(KEY, "u1") == [Change(KEY, "u1", deleted=True)]
    assert cache.remove(KEY, "u1") == []
    assert cache.put(task(11)) == [], "an answer to a write that came late"
    assert cache.get(KEY) is None
    assert list(cache.list("Task")) == []


def test_an_object_goes_with_its_last_finalizer() -> None:
    cache = Cache()
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    cache.put(task(1, finalizers=["codeswarm.dev/usage"], **leaving))
    assert cache.get(KEY) is not None
    assert cache.put(task(2, **leaving)) == [Change(KEY, "u1", deleted=True)]
    assert cache.get(KEY) is None


def test_lists_by_owner_and_label() -> None:
    cache = Cache()
    owner = [{"uid": "p", "kind": "Project", "name": "demo"}]
    cache.put(task(1, "u1", "a", ownerReferences=owner, labels={"x": "1"}))
    cache.put(task(2, "u2", "b", ownerReferences=owner))
    cache.put(task(3, "u3", "c"))

    def names(**wanted: Any) -> list[str]:
        return [obj["metadata"]["name"] for obj in cache.list("Task", **wanted)]

    assert names() == ["a", "b", "c"]
    assert names(owner_uid="p") == ["a", "b"]
    assert names(owner_uid="p", labels={"x": "1"}) == ["a"]
    assert names(namespace="elsewhere") == []
    cache.put(task(4, "u2", "b"))
    assert names(owner_uid="p") == ["a"]
    cache.remove(KEY, "u1")
    assert names(owner_uid="p") == []


def test_few_of_the_gone_are_remembered() -> None:
    cache = Cache()
    for number in range(REMEMBERED + 5):
        cache.remove(KEY, f"u{number}")
    assert len(cache._gone) == REMEMBERED


EVENTS = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from(["a", "b"]), st.booleans()), max_size=30
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_the_end_does_not_depend_on_the_order(
    events: list[tuple[int, str, bool]], chance: Any
) -> None:
    """Answers to writes and watch events are shuffled; deletions are told once, at any time."""
    versions = {name: sorted({v for v, n, _ in events if n == name}) for name in ("a", "b")}
    gone = {name for _, name, deleted in events if deleted}
    told: list[tuple[str, int]] = [(n, v) for n, found in versions.items() for v in found]
    told += [(n, 0) for n in gone]
    told += chance.sample(told, len(told) // 2)
    chance.shuffle(told)
    cache = Cache()
    for name, version in told:
        if version:
            cache.put(task(version, f"uid-{name}", name))
        else:
            cache.remove(Key("Task", "default", name), f"uid-{name}")
    left = {obj["metadata"]["name"]: obj["spec"]["prompt"] for obj in cache.list("Task")}
    assert left == {
        name: f"version {found[-1]}"
        for name, found in versions.items()
        if found and name not in gone
    }


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_versions_are_compared_as_numbers(one: int, other: int) -> None:
    assert is_newer(str(one), str(other)) == (one > other)
    assert is_newer("abc", str(other))
