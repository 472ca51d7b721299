"""The stores of repositories on a cluster's shared file system: what is there, in, and out.

A store is a project's bare repository ``<root>/stores/<project uid>.git``, of the format of
worker/objectstore.py: workers there take it for their repository.  It is filled from here alone,
by a bundle (git-bundle(1)) that the controller sends or by an anonymous clone, and what workers
push to it is handed out as a bundle.

Every function may be repeated after a kill at any point, and run in several processes at once:
``have/<commit>`` and ``refs/base/<commit>`` are made only when all that the commit reaches is
there, and a lock is held while a store changes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from worker.attendant.storegit import Done, StoreGit
from worker.failures import ProviderError
from worker.git import config_text
from worker.paths import component, existing, make
from worker.trees import remove_tree

LOOK_SECONDS = 120.0
"""For a command that only looks."""
ASK_SECONDS = 30.0
"""For the first word of a repository on the web: it is known whether it can be reached at all."""
MAX_COMMITS = 5000
MAX_TIPS = 2000
STALE_SECONDS = 86_400.0
"""What an interrupted transfer left is removed after so long."""

DURABLE = "[core]\n\tfsync = committed,reference\n\tfsyncMethod = batch\n"
"""What was pushed is on the disk before that is said, since the machine that has the disk may be
taken away.  A git that does not know it passes over it."""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_REF = re.compile(r"refs/(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)*[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_BRANCH = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]+\Z")
_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f]+\Z")
_LOCK_PAUSE = 0.05
_REFS_AT_ONCE = 500
_CHUNK = 1 << 20
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


def lacking(stores: Path, name: str, commits: Sequence[str]) -> list[str]:
    """Those of the commits that the store does not have with all that they reach.

    Raises: ProviderError.
    """
    asked = _checked(commits)
    store = _existing(stores, name)
    if store is None:
        return asked
    unsure = [commit for commit in asked if not _marked(store, commit)]
    if not unsure:
        return []
    git = StoreGit(store)
    present = _present(git, unsure)
    complete = _complete_ones(git, [commit for commit in unsure if commit in present])
    _mark(store, complete)
    return [commit for commit in unsure if commit not in complete]


def tips(stores: Path, name: str) -> list[str]:
    """Commits that refs of the store hold, the latest first: what a bundle may leave out.

    Raises: ProviderError.
    """
    store = _existing(stores, name)
    if store is None:
        return []
    done = StoreGit(store).run(
        "for-each-ref",
        "--sort=-committerdate",
        f"--count={MAX_TIPS}",
        "--format=%(objectname) %(objecttype)",
        seconds=LOOK_SECONDS,
    )
    _expect(done, "StoreUnreadable", f"the store {name} cannot be read")
    lines = done.out.decode("ascii", "replace").splitlines()
    return list(dict.fromkeys(line[:-7] for line in lines if line.endswith(" commit")))


def clone(stores: Path, name: str, url: str, branch: str, commit: str, *, seconds: float) -> None:
    """Fetch a commit of a branch from the web into the store, without any credential.

    Raises: ProviderError (``CloneFailed``).
    """
    (commit,) = _checked([commit])
    if not _URL.match(url) or not _BRANCH.match(branch) or branch.startswith("-"):
        raise ProviderError("CloneFailed", "only http:// and https:// are cloned from here")
    with _locked(stores, name, seconds) as held:
        store = _make(stores, name, commit)
        if _marked(store, commit):
            return
        git = StoreGit(store, held)
        head = f"refs/heads/{branch}"
        asked = git.run("ls-remote", "--", url, head, seconds=ASK_SECONDS, anonymous=True)
        _expect(asked, "CloneFailed", f"{url} cannot be read from the login host")
        for wanted in (head, commit):
            done = git.run(
                *("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--"),
                *(url, wanted),
                seconds=seconds,
                anonymous=True,
            )
            if done.code == 0 and _complete_ones(git, sorted(_present(git, [commit]))):
                break
        else:
            raise ProviderError(
                "CloneFailed", f"{url} does not give commit {commit[:12]}: {done.said}"
            )
        _hold(git, commit)
        _mark(store, [commit])


def put_bundle(
    stores: Path, name: str, source: BinaryIO, size: int, commits: Sequence[str], *, seconds: float
) -> None:
    """Take in commits from a bundle that has a ref for each of them.

    Args:
        source: where the bundle is read from, to its last byte.
        size: its length in bytes: a stream that ends earlier was cut.
        commits: what the store shall have then, with all that they reach.
        seconds: for git's work, the reading not counted.

    Raises: ProviderError (``TransferCut``, ``BundleRefused``, ``StoreNotWritable``).
    """
    wanted = _checked(commits)
    _folder(stores)
    _sweep(stores)
    incoming = stores / f".incoming-{secrets.token_hex(8)}.bundle"
    try:
        _receive(source, size, incoming)
        with _locked(stores, name, seconds) as held:
            store = _make(stores, name, wanted[0])
            missing = [commit for commit in wanted if not _marked(store, commit)]
            if missing:
                _take_in(StoreGit(store, held), incoming, missing, seconds)
                _mark(store, missing)
    except OSError as error:
        raise ProviderError(
            "StoreNotWritable", f"{stores} cannot be written: {error.strerror or error}"
        ) from error
    finally:
        incoming.unlink(missing_ok=True)


def get_bundle(
    stores: Path, name: str, ref: str, known: Sequence[str], out: BinaryIO, *, seconds: float
) -> None:
    """Write a bundle with a ref, less what the known commits reach; its own commit is always there.

    Args:
        known: commits that the receiver has; those that are not here are ignored.
        out: a real file or pipe: git writes to its descriptor.

    Raises: ProviderError (``RefNotFound``, ``StoreUnreadable``).
    """
    if not _REF.match(ref):
        raise ProviderError("RefNotFound", f"{ref[:200]!r} is not a ref's full name")
    store = _existing(stores, name)
    git = StoreGit(store) if store is not None else None
    found = git.run("rev-parse", "--verify", "--quiet", ref, seconds=LOOK_SECONDS) if git else None
    if git is None or found is None or found.code != 0:
        raise ProviderError("RefNotFound", f"the store {name} has no {ref}")
    bounds = sorted(_present(git, _checked(known)))
    negative = "".join(f"^{commit}\n" for commit in bounds)
    news = git.run("rev-list", "-1", ref, "--stdin", seconds=LOOK_SECONDS, stdin=negative or "\n")
    _expect(news, "StoreUnreadable", f"the store {name} cannot be read")
    if news.out.strip():
        done = git.run(
            *("bundle", "create", "-", ref, "--stdin"),
            seconds=seconds,
            stdin=negative or "\n",
            out=out,
        )
    else:  # all of it is known, and git makes no empty bundle
        done = git.run("bundle", "create", "-", "-1", ref, seconds=seconds, out=out)
    _expect(done, "StoreUnreadable", f"{ref} of the store {name} cannot be packed")


def discard(stores: Path, name: str) -> None:
    """Remove a store; one that is not there is fine.

    Raises: ProviderError, OSError.
    """
    store = stores / component(name)
    if not os.path.lexists(store):
        return
    with _locked(stores, name, LOOK_SECONDS):
        remove_tree(store)
        (stores / f"{name}.lock").unlink(missing_ok=True)


# --- the parts -----------------------------------------------------------------------------------


def _checked(commits: Iterable[str]) -> list[str]:
    asked = list(dict.fromkeys(commits))
    if len(asked) > MAX_COMMITS or not all(
        isinstance(commit, str) and _COMMIT.match(commit) for commit in asked
    ):
        raise ProviderError(
            "InvalidCommit", f"a commit is a full hash, and at most {MAX_COMMITS} are asked for"
        )
    return asked


def _existing(stores: Path, name: str) -> Path | None:
    store = existing(stores, name)
    return store if store is not None and (store / "HEAD").exists() else None


def _marked(store: Path, commit: str) -> bool:
    return (store / "have" / commit).exists()


def _mark(store: Path, commits: Iterable[str]) -> None:
    for commit in commits:
        (store / "have" / commit).touch()


def _present(git: StoreGit, commits: Sequence[str]) -> set[str]:
    """Those of which at least the commit itself is there."""
    if not commits:
        return set()
    done = git.run(
        "cat-file",
        "--batch-check=%(objectname) %(objecttype)",
        seconds=LOOK_SECONDS,
        stdin="".join(f"{commit}\n" for commit in commits),
    )
    _expect(done, "StoreUnreadable", "the store cannot be read")
    lines = done.out.decode("ascii", "replace").splitlines()
    return {line[:-7] for line in lines if line.endswith(" commit")}.intersection(commits)


def _complete_ones(git: StoreGit, commits: Sequence[str]) -> list[str]:
    """Those of these present commits from which everything can be reached."""
    if not commits or _complete(git, commits):
        return list(commits)
    return [commit for commit in commits if _complete(git, [commit])] if len(commits) > 1 else []


def _complete(git: StoreGit, commits: Sequence[str]) -> bool:
    walk = git.run(
        *("rev-list", "--objects", "--quiet", "--not", "--all", "--not", "--stdin"),
        seconds=10 * LOOK_SECONDS,
        stdin="".join(f"{commit}\n" for commit in commits),
    )
    return walk.code == 0


def _hold(git: StoreGit, commit: str) -> None:
    done = git.run("update-ref", f"refs/base/{commit}", commit, seconds=LOOK_SECONDS)
    _expect(done, "StoreNotWritable", "the store cannot be written")


def _take_in(git: StoreGit, bundle: Path, commits: Sequence[str], seconds: float) -> None:
    listed = git.run("bundle", "list-heads", str(bundle), seconds=LOOK_SECONDS)
    _expect(listed, "BundleRefused", "what was sent is no bundle")
    refs = {}
    for line in listed.out.decode("utf-8", "replace").splitlines():
        commit, _, ref = line.partition(" ")
        if _REF.match(ref):
            refs[commit] = ref
    unnamed = [commit for commit in commits if commit not in refs]
    if unnamed:
        raise ProviderError("BundleRefused", f"the bundle has no ref for {unnamed[0][:12]}")
    for start in range(0, len(commits), _REFS_AT_ONCE):
        specs = [f"+{refs[c]}:refs/base/{c}" for c in commits[start : start + _REFS_AT_ONCE]]
        done = git.run(
            *("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--", str(bundle)),
            *specs,
            seconds=seconds,
        )
        _expect(done, "BundleRefused", "the bundle cannot be taken in")


def _receive(source: BinaryIO, size: int, path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    left = size
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        while left:
            data = source.read(min(left, _CHUNK))
            if not data:
                raise ProviderError(
                    "TransferCut", f"{left} of {size} bytes are missing: the transfer was cut"
                )
            file.write(data)
            left -= len(data)


def _folder(stores: Path) -> Path:
    """The folder of all stores, made if it is not there."""
    try:
        return make(stores)
    except OSError as error:
        raise ProviderError(
            "StoreNotWritable", f"{stores} cannot be made: {error.strerror or error}"
        ) from error


def _make(stores: Path, name: str, oid: str) -> Path:
    """The store, made for objects with names like ``oid`` if it is not there."""
    store = _existing(stores, name)
    if store is not None:
        return store
    part = stores / f".making-{secrets.token_hex(8)}"
    try:
        for folder in ("objects/info", "objects/pack", "refs/base", "have"):
            (part / folder).mkdir(parents=True)
        (part / "config").write_text(config_text(oid, bare=True) + DURABLE)
        (part / "HEAD").write_text("ref: refs/heads/none\n")
        part.chmod(0o700)
        part.replace(stores / component(name))
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        store = _existing(stores, name)
        if store is None:
            raise ProviderError(
                "StoreNotWritable", f"{stores} cannot be written: {error.strerror or error}"
            ) from error
    return stores / name


@contextmanager
def _locked(stores: Path, name: str, seconds: float) -> Iterator[int | None]:
    """Alone with a store, the descriptor of its lock; None where the file system has no locks.

    Without them git itself keeps two of its own apart, and what is done twice does no harm.

    Raises: ProviderError (``StoreBusy``, ``StoreNotWritable``).
    """
    lock = _folder(stores) / f"{component(name)}.lock"
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ProviderError(
            "StoreNotWritable", f"{lock} cannot be opened: {error.strerror}"
        ) from error
    try:
        yield handle if _lock(handle, name, time.monotonic() + seconds) else None
    finally:
        os.close(handle)


def _lock(handle: int, name: str, until: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                raise ProviderError(
                    "StoreBusy", f"the store {name} is being changed by another transfer"
                ) from None
            time.sleep(_LOCK_PAUSE)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise


def _sweep(stores: Path) -> None:
    """Remove what transfers that were killed have left."""
    old = time.time() - STALE_SECONDS
    for path in [*stores.glob(".incoming-*"), *stores.glob(".making-*")]:
        try:
            if path.lstat().st_mtime < old:
                remove_tree(path)
        except OSError:
            continue


def _expect(done: Done, reason: str, what: str) -> None:
    if done.code != 0:
        raise ProviderError(reason, f"{what}: {done.said}")
