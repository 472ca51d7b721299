"""A worker whose repository is the project's store: nothing is fetched, only its ref is pushed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.carrying.graphs import bundle_of, objects
from tests.worker.harness import Repository, Worker, block, git, head
from worker import objectstore
from worker.attendant import stores

NAME = "p-1.git"


@pytest.fixture
def remote(tmp_path):
    """The user's repository, where the worker's side never gets to."""
    big = os.urandom(400_000).hex()
    return Repository(tmp_path / "user's" / "repo.git", {"README.md": "hello\n", "big": big})


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path / "cluster" / "job")
    yield made
    made.close()


class Sent:
    """The place where the worker lives."""

    def __init__(self, folder: Path, remote: Repository) -> None:
        self.folder = folder / "cluster" / "stores"
        self.remote = remote
        self.store = self.folder / NAME

    def send(self, *commits: str) -> None:
        path = self.folder.parent / "sent.bundle"
        self.folder.parent.mkdir(exist_ok=True)
        bundle_of(self.remote.path, path, list(commits), stores.tips(self.folder, NAME))
        with path.open("rb") as source:
            size = path.stat().st_size
            stores.put_bundle(self.folder, NAME, source, size, commits, seconds=60)

    def record(self, injection: str, content: str, **more: Any) -> dict[str, Any]:
        record = self.remote.work(injection, content, **more)
        for name in ("branch", "expected"):
            record["repository"].pop(name, None)
        record["repository"].update(url=str(self.store), store=str(self.store))
        return record

    def refs(self) -> dict[str, str]:
        lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.store)
        return dict(line.split(" ") for line in lines.splitlines())


@pytest.fixture
def place(tmp_path, remote):
    sent = Sent(tmp_path, remote)
    sent.send(remote.base)
    remote.path = remote.path.rename(remote.path.with_name("out of reach"))
    return sent


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_work_is_pushed_to_its_attempts_ref_alone(worker, place, remote):
    before = size(place.store)
    worker.start()
    worker.write(place.record("u.1", block({"write": {"path": "a", "content": "1\n"}})))
    done = worker.outcome("u.1")
    assert done["status"] == "completed", done
    told = worker.wait("task_complete")["data"]
    assert told == {
        "base_commit": remote.base,
        "head_commit": place.refs()["refs/codeswarm/uid-library/1"],
        "attempt_ref": "refs/codeswarm/uid-library/1",
        "pushed": True,
        "files_changed": ["a"],
        "files_changed_count": 1,
    }
    assert '"status": "done"' in done["answer"]
    assert not [ref for ref in place.refs() if ref.startswith("refs/heads/")]
    assert size(place.store) - before < 20_000  # the base is neither fetched nor pushed again
    assert stores.lacking(place.folder, NAME, [told["head_commit"]]) == []


def test_what_others_made_there_is_built_on_and_integrated(worker, place, remote):
    worker.start()
    for name in ("one", "two"):
        content = block({"write": {"path": name, "content": "x\n"}})
        worker.write(place.record(f"u.{name}", content, name=name))
        assert worker.outcome(f"u.{name}")["status"] == "completed"
    refs = place.refs()
    heads = [head(n, refs[f"refs/codeswarm/uid-{n}/1"]) for n in ("one", "two")]
    assert stores.lacking(place.folder, NAME, [h["commit"] for h in heads]) == []
    worker.write(
        place.record("u.3", block({"run": "cat one"}), name="three", dependencies=heads[:1])
    )
    assert worker.outcome("u.3")["status"] == "completed"
    work = {"merges": heads, "verify": ["test -e one", "test -e two"]}
    worker.write(
        place.record("u.i", "Integrate.", kind="integration", name="integration", integration=work)
    )
    done = worker.outcome("u.i")
    assert done["status"] == "completed", done
    merged = place.refs()["refs/codeswarm/uid-integration/1"]
    assert objects(place.store, merged)
    assert {h["commit"] for h in heads} < set(git("rev-list", merged, cwd=place.store).splitlines())


def test_what_comes_late_is_waited_for(worker, place, remote):
    remote.path = remote.path.rename(remote.path.with_name("repo.git"))  # where its clone knows it
    late = remote.commit("main", {"late": "1\n"})
    remote.path = remote.path.rename(remote.path.with_name("out of reach"))
    worker.start()
    worker.write(place.record("u.1", "Do it.", base=late))
    sending = threading.Timer(1.0, place.send, [late])
    sending.start()
    try:
        assert worker.outcome("u.1")["status"] == "completed"
    finally:
        sending.join()


def test_what_never_comes_fails_the_turn_as_infrastructure(worker, place, monkeypatch):
    worker.env = {**worker.env, "PYTHONPATH": str(worker.base)}
    patch = "import worker.objectstore as o\no.VISIBLE_SECONDS = 0.5\n"
    (worker.base / "impatient.py").write_text(
        f"{patch}import sys\nfrom worker.__main__ import run\nrun()\n"
    )
    root = Path(objectstore.__file__).parents[1]
    worker.env["PYTHONPATH"] = f"{worker.base}:{root}"
    worker.argv = (*worker.argv[:1], "-m", "impatient")
    worker.start()
    began = time.monotonic()
    worker.write(place.record("u.1", "Do it.", base="f" * 40))
    done = worker.outcome("u.1")
    assert done["error"]["class"] == "infrastructure"
    assert "sent again" in done["error"]["message"]
    assert time.monotonic() - began < 15
