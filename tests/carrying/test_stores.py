"""The stores on a cluster: commits come in whole or not at all, whatever is interrupted."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.carrying.graphs import bare, bundle_of, grow, objects
from tests.lab import git
from worker.attendant import stores
from worker.attendant.storegit import StoreGit
from worker.failures import ProviderError

NAME = "0e5f6c4e-1111-2222-3333-444455556666.git"
REF = "refs/codeswarm/0e5f6c4e-aaaa/1"


def put(folder: Path, bundle: Path, commits: list[str]) -> None:
    with bundle.open("rb") as source:
        stores.put_bundle(folder, NAME, source, bundle.stat().st_size, commits, seconds=60)


def get(folder: Path, ref: str, known: list[str], path: Path) -> Path:
    with path.open("wb") as out:
        stores.get_bundle(folder, NAME, ref, known, out, seconds=60)
    return path


def reason(call, *arguments, **more) -> str:
    with pytest.raises(ProviderError) as caught:
        call(*arguments, **more)
    return caught.value.reason


@st.composite
def graphs(draw):
    """Parents of each commit: any earlier ones, none (another root), or two (a merge)."""
    size = draw(st.integers(1, 9))
    return [
        draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True)) if n else []
        for n in range(size)
    ]


@given(graphs(), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_commits_arrive_whole_in_any_order(tmp_path_factory, parents, data):
    folder = tmp_path_factory.mktemp("dag")
    source, there = bare(folder / "source.git"), folder / "stores"
    commits = grow(source, parents)
    order = data.draw(st.permutations(commits))
    sent: list[str] = []
    for step, commit in enumerate(order):
        lacking = stores.lacking(there, NAME, commits)
        whole = {c for c in commits if c not in lacking}
        assert set(sent) <= whole
        for known in whole:
            assert objects(there / NAME, known) == objects(source, known)
        tips = stores.tips(there, NAME)
        if commit in lacking:
            path = bundle_of(source, folder / f"{step}.bundle", [commit], tips)
            if data.draw(st.booleans()):
                cut = path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size - 1))]
                half = io.BytesIO(cut)
                size = path.stat().st_size
                error = reason(stores.put_bundle, there, NAME, half, size, [commit], seconds=60)
                assert error == "TransferCut"
                assert commit in stores.lacking(there, NAME, [commit])
            put(there, path, [commit])
        put_again = data.draw(st.booleans())
        if put_again and commit in lacking:
            put(there, path, [commit])
        sent.append(commit)
    assert stores.lacking(there, NAME, commits) == []
    assert not [p for p in there.iterdir() if p.name.startswith(".")]


@given(graphs(), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_result_comes_home_whole(tmp_path_factory, parents, data):
    folder = tmp_path_factory.mktemp("home")
    there, home = folder / "stores", bare(folder / "home.git")
    there.mkdir()
    store = bare(there / NAME)
    commits = grow(store, parents)
    head = data.draw(st.sampled_from(commits))
    known = data.draw(st.lists(st.sampled_from(commits), unique=True))
    git("-C", str(store), "update-ref", REF, head)
    if known:
        git(*("-C", str(home), "fetch", "--quiet", str(store)), *(f"{c}:refs/k/{c}" for c in known))
    path = get(there, REF, [*known, "f" * 40], folder / "b")
    git("-C", str(home), "fetch", "--quiet", str(path), f"{REF}:{REF}")
    assert git("-C", str(home), "rev-parse", REF) == head
    assert objects(home, head) == objects(store, head)


@pytest.fixture
def sent(tmp_path):
    """A source with three commits, and the folder for stores."""
    source = bare(tmp_path / "source.git")
    return source, grow(source, [[], [0], [1]]), tmp_path / "stores"


def test_nothing_is_there_before_anything_was_sent(sent):
    _, commits, there = sent
    assert stores.lacking(there, NAME, commits) == commits
    assert stores.tips(there, NAME) == []
    stores.discard(there, NAME)
    assert not there.exists()


def test_a_commit_whose_objects_are_missing_is_lacking(sent, tmp_path):
    source, commits, there = sent
    put(there, bundle_of(source, tmp_path / "b", commits[:1], []), commits[:1])
    commit = git("-C", str(source), "cat-file", "commit", commits[1])
    subprocess.run(
        ["git", "-C", str(there / NAME), "hash-object", "-w", "-t", "commit", "--stdin"],
        input=f"{commit}\n".encode(),
        check=True,
        capture_output=True,
    )
    assert stores.lacking(there, NAME, commits[:2]) == [commits[1]]


def test_work_that_was_pushed_there_is_not_lacking(sent, tmp_path):
    source, commits, there = sent
    put(there, bundle_of(source, tmp_path / "b", commits[:1], []), commits[:1])
    git("-C", str(source), "push", "--quiet", str(there / NAME), f"{commits[2]}:{REF}")
    assert stores.lacking(there, NAME, commits) == []
    assert (there / NAME / "have" / commits[2]).exists()


def test_a_bundle_that_needs_what_is_not_there_is_refused(sent, tmp_path):
    source, commits, there = sent
    path = bundle_of(source, tmp_path / "b", commits[2:], commits[1:2])
    assert reason(put, there, path, commits[2:]) == "BundleRefused"
    assert stores.lacking(there, NAME, commits) == commits


def test_a_bundle_without_what_was_named_is_refused(sent, tmp_path):
    source, commits, there = sent
    path = bundle_of(source, tmp_path / "b", commits[:1], [])
    assert reason(put, there, path, commits[:2]) == "BundleRefused"
    (tmp_path / "c").write_bytes(b"no bundle at all")
    assert reason(put, there, tmp_path / "c", commits[:1]) == "BundleRefused"


def test_a_store_of_sha256(tmp_path):
    source, there = bare(tmp_path / "source.git", "sha256"), tmp_path / "stores"
    commits = grow(source, [[], [0]])
    put(there, bundle_of(source, tmp_path / "b", commits, []), commits)
    assert stores.lacking(there, NAME, commits) == []
    git("-C", str(source), "push", "--quiet", str(there / NAME), f"{commits[1]}:{REF}")
    path = get(there, REF, commits[:1], tmp_path / "out")
    home = bare(tmp_path / "home.git", "sha256")
    git("-C", str(home), "fetch", "--quiet", str(source), "c0:refs/heads/c0")
    git("-C", str(home), "fetch", "--quiet", str(path), f"{REF}:{REF}")
    assert objects(home, commits[1])


def test_a_thousand_heads_are_sent_at_once(tmp_path):
    source, there = bare(tmp_path / "source.git"), tmp_path / "stores"
    commits = grow(source, [[], *([0] for _ in range(1000))])
    put(there, bundle_of(source, tmp_path / "b", commits[1:], []), commits[1:])
    assert stores.lacking(there, NAME, commits) == []


def test_only_what_is_new_comes_home(sent, tmp_path):
    source, commits, there = sent
    big = tmp_path / "big"
    big.write_bytes(os.urandom(300_000))
    blob = git("-C", str(source), "hash-object", "-w", str(big))
    assert blob
    put(there, bundle_of(source, tmp_path / "b", commits[:2], []), commits[:2])
    git("-C", str(there / NAME), "update-ref", REF, commits[1])
    whole = get(there, REF, [], tmp_path / "whole").stat().st_size
    thin = get(there, REF, [commits[0]], tmp_path / "thin").stat().st_size
    nothing_new = get(there, REF, [commits[1]], tmp_path / "same").stat().st_size
    assert thin < whole
    assert 0 < nothing_new <= thin


def test_a_ref_that_is_not_there(sent, tmp_path):
    source, commits, there = sent
    assert reason(get, there, REF, [], tmp_path / "x") == "RefNotFound"
    put(there, bundle_of(source, tmp_path / "b", commits, []), commits)
    for ref in (REF, "HEAD", "--all", "refs/../x", "refs/heads/-x y"):
        assert reason(get, there, ref, [], tmp_path / "x") == "RefNotFound"


@pytest.mark.parametrize("name", ["../x.git", "a/b.git", "", ".git", "-x"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    assert reason(stores.lacking, tmp_path, name, ["a" * 40]) == "InvalidName"
    assert reason(stores.discard, tmp_path, name) == "InvalidName"


def test_a_link_in_the_place_of_a_store_is_left_alone(sent, tmp_path):
    source, commits, there = sent
    there.mkdir()
    elsewhere = bare(tmp_path / "precious.git")
    (there / NAME).symlink_to(elsewhere)
    path = bundle_of(source, tmp_path / "b", commits, [])
    assert reason(put, there, path, commits) == "UnsafePath"
    stores.discard(there, NAME)
    assert elsewhere.exists()
    assert not (there / NAME).exists()


def test_what_is_no_commit_is_refused(tmp_path):
    for wrong in ("HEAD", "--all", "abc", "A" * 40, "a" * 41):
        assert reason(stores.lacking, tmp_path, NAME, [wrong]) == "InvalidCommit"


def test_discarded_and_sent_again(sent, tmp_path):
    source, commits, there = sent
    path = bundle_of(source, tmp_path / "b", commits, [])
    put(there, path, commits)
    stores.discard(there, NAME)
    assert list(there.iterdir()) == []
    assert stores.lacking(there, NAME, commits) == commits
    put(there, path, commits)
    assert stores.lacking(there, NAME, commits) == []


def test_two_at_once(sent, tmp_path):
    source, commits, there = sent
    path = bundle_of(source, tmp_path / "b", commits, [])
    errors: list[BaseException] = []

    def send() -> None:
        try:
            put(there, path, commits)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert stores.lacking(there, NAME, commits) == []


PUT = """\
import sys
from pathlib import Path
from worker.attendant import stores
from worker.attendant.storegit import StoreGit
bundle = Path(sys.argv[2])
with bundle.open("rb") as source:
    stores.put_bundle(Path(sys.argv[1]), sys.argv[3], source, bundle.stat().st_size, sys.argv[4:],
                      seconds=60)
"""


@pytest.mark.parametrize("after", [0.0, 0.03, 0.06, 0.09, 0.12, 0.2])
def test_killed_at_any_moment_it_is_whole_or_lacking(tmp_path, after):
    source, there = bare(tmp_path / "source.git"), tmp_path / "stores"
    commits = grow(source, [[], *([n] for n in range(300))])
    path = bundle_of(source, tmp_path / "b", commits[-1:], [])
    command = [sys.executable, "-c", PUT, str(there), str(path), NAME, commits[-1]]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    end = time.monotonic() + 10
    while not there.exists() and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(after)  # the moment of the kill is what varies here
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not stores.lacking(there, NAME, commits[-1:]):
        assert objects(there / NAME, commits[-1])
    put(there, path, commits[-1:])
    assert stores.lacking(there, NAME, commits[-1:]) == []
    assert objects(there / NAME, commits[-1]) == objects(source, commits[-1])


def test_what_a_killed_transfer_left_is_removed_after_a_day(sent, tmp_path):
    source, commits, there = sent
    there.mkdir()
    for name in (".incoming-aa.bundle", ".making-bb"):
        (there / name).write_text("half")
    os.utime(there / ".making-bb", (0, 0))
    put(there, bundle_of(source, tmp_path / "b", commits, []), commits)
    assert [p.name for p in there.iterdir() if p.name.startswith(".")] == [".incoming-aa.bundle"]


def test_a_folder_that_cannot_be_written(sent, tmp_path):
    source, commits, _ = sent
    (tmp_path / "file").write_text("")
    path = bundle_of(source, tmp_path / "b", commits, [])
    assert reason(put, tmp_path / "file" / "stores", path, commits) == "StoreNotWritable"


@pytest.mark.parametrize(
    "url", ["/srv/x.git", "file:///srv/x.git", "ssh://h/x", "ext::sh -c id", "--upload-pack=x"]
)
def test_only_the_web_is_cloned(tmp_path, url):
    error = reason(stores.clone, tmp_path, NAME, url, "main", "a" * 40, seconds=5)
    assert error == "CloneFailed"


def test_a_server_that_stalls_does_not_keep_the_store_locked(tmp_path, monkeypatch):
    """It answers, and then sends no more."""
    monkeypatch.setattr("worker.attendant.storegit.STALL_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/r.git"
        begun = time.monotonic()
        git = StoreGit(bare(tmp_path / "store.git"))
        done = git.run("fetch", "--", url, "main", seconds=30, anonymous=True)
        assert done.code != 0 and time.monotonic() - begun < 15
        for connection in kept:
            connection.close()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
