"""Commits that travel between this machine and stores elsewhere, as bundle files (git-bundle(1)).

A commit that an object store holds with all that it reaches has the ref
``refs/controller/commits/<commit>`` there: git sets a ref only after it has looked.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from controller.repository.credentials import Credentials
from controller.repository.objects import KEPT, ObjectStore
from controller.repository.problems import (
    RepositoryProblem,
    RepositoryReason,
    detail,
    from_git,
)
from controller.repository.urls import locate

COMMITS = f"{KEPT}commits/"
CARRIED = f"{KEPT}carried/"
"""Where refs are kept that were fetched to be sent on, apart from those of other fetches."""
NO_REF, NO_COMMIT = "couldn't find remote ref", "not our ref"
"""Git's own words (with ``LC_ALL=C``) for what a remote that answers does not have."""
KEPT_AS_PACK = 100
"""Objects from which on what comes is kept as a pack, as git does with a push
(``transfer.unpackLimit``): a pack for each small attempt would slow every command down."""
_PACK_HEADER = 12  # bytes: "PACK", version, number of objects (gitformat-pack(5))
MAX_HEADER_LINES = 10_000
MAX_HEADER_LINE = 1 << 20
"""Bytes: a prerequisite's line has its commit's title."""


async def held(store: ObjectStore, commits: Iterable[str]) -> set[str]:
    """Those of the commits that the store holds with all that they reach."""
    asked = list(dict.fromkeys(commits))
    if not asked or not store.is_made:
        return set()
    result = await store.run(
        "cat-file",
        "--batch-check=%(objectname) %(objecttype)",
        stdin="".join(f"{COMMITS}{commit}\n" for commit in asked),
    )
    _expect(result.code, store, result.err)
    found = {line.removesuffix(" commit") for line in result.out.splitlines()}
    return found.intersection(asked)


async def hold(
    store: ObjectStore,
    url: str,
    wanted: Mapping[str, str],
    credentials: Credentials | None = None,
) -> None:
    """Have commits of a repository in the store, with all that they reach.

    Args:
        wanted: each commit, and a ref of the repository (full name) that held it last.

    Raises: RepositoryProblem (``CommitNotFound``, ``ShallowRepository``, ...).
    """
    await store.ensure(next(iter(wanted), ""))
    missing = set(wanted) - await held(store, wanted)
    if not missing:
        return
    refused: RepositoryProblem | None = None
    try:
        refs = sorted({wanted[commit] for commit in missing})
        await store.fetch(url, refs, credentials, kept=CARRIED)
    except RepositoryProblem as problem:  # a ref that is gone; the commit itself may be there
        refused = problem
    missing -= await _keep(store, missing)
    if not missing:
        return
    location = locate(url)
    specs = "".join(f"+{commit}:{COMMITS}{commit}\n" for commit in sorted(missing))
    async with store.fetching:
        result = await store.run(
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--stdin"),
            *("--", location.url),
            stdin=specs,
            credentials=credentials,
        )
    left = missing - await held(store, missing)
    if not left:
        return
    if location.local and _is_shallow(Path(location.url)):
        raise RepositoryProblem(
            RepositoryReason.SHALLOW,
            f"{url} is a shallow clone and lacks history that has to be sent; complete it: "
            f"git -C {url} fetch --unshallow",
        )
    if refused is not None and NO_REF not in refused.message:
        raise refused
    if result.code != 0 and NO_COMMIT not in result.err:
        raise from_git(url, result.err)
    names = ", ".join(f"{commit[:12]} ({wanted[commit]})" for commit in sorted(left)[:5])
    raise RepositoryProblem(
        RepositoryReason.COMMIT_NOT_FOUND, f"{url} does not have {names} any more"
    )


async def _keep(store: ObjectStore, commits: Collection[str]) -> set[str]:
    """Hold those of these commits that are there whole."""
    present = sorted(await store.contains(commits))
    complete = present if await _complete(store, present) else []
    if not complete:
        complete = [commit for commit in present if await _complete(store, [commit])]
    if complete:
        orders = "".join(f"update {COMMITS}{commit} {commit}\n" for commit in complete)
        result = await store.run("update-ref", "--stdin", stdin=orders)
        _expect(result.code, store, result.err)
    return set(complete)


async def _complete(store: ObjectStore, commits: Collection[str]) -> bool:
    if not commits:
        return True
    walk = await store.run(
        *("rev-list", "--objects", "--quiet", "--not", "--all", "--not", "--stdin"),
        stdin="".join(f"{commit}\n" for commit in commits),
    )
    return walk.code == 0


def _is_shallow(repository: Path) -> bool:
    return any((repository / name / "shallow").exists() for name in (".", ".git"))


async def pack(
    store: ObjectStore, commits: Collection[str], known: Collection[str], bundle: Path
) -> None:
    """Write held commits to a bundle file, less what the known ones reach.

    Args:
        commits: held by the store, each becomes a ref of the bundle.
        known: commits that the receiver has; those that are not here are ignored.

    Raises: RepositoryProblem.
    """
    bounds = await store.contains(known)
    lines = [*(f"{COMMITS}{c}" for c in sorted(commits)), *(f"^{c}" for c in sorted(bounds)), ""]
    result = await store.run("bundle", "create", str(bundle), "--stdin", stdin="\n".join(lines))
    _expect(result.code, store, result.err)


async def unpack(store: ObjectStore, bundle: Path, ref: str, commit: str, base: str) -> None:
    """Take a commit from a bundle file that came from where agents run, and hold it.

    The file must hold this one ref at this commit, sound objects, and work on ``base``; nothing
    of it is held before all that is certain.

    Raises: RepositoryProblem (``BundleIncomplete``: it does not).
    """
    await store.ensure(commit)
    with bundle.open("rb") as file:
        _check_header(file, ref, commit)
        begin = file.tell()
        many = int.from_bytes(file.read(_PACK_HEADER)[8:], "big") >= KEPT_AS_PACK
        os.lseek(file.fileno(), begin, os.SEEK_SET)  # where git goes on to read
        take = ("index-pack", "--stdin", "--fix-thin") if many else ("unpack-objects", "-q")
        result = await store.run(*take, "--strict", source=file)
    if result.code != 0:
        raise _incomplete(f"{ref} cannot be taken in: {detail(result.err)}")
    if not await _complete(store, [commit]):
        raise _incomplete(f"{ref} lacks objects of {commit[:12]}")
    await check_base(store, commit, base)
    kept = await store.run("update-ref", f"{COMMITS}{commit}", commit)
    _expect(kept.code, store, kept.err)


async def check_base(store: ObjectStore, commit: str, base: str) -> None:
    """See that work builds on what its attempt was pinned to.

    Raises: RepositoryProblem (``BundleIncomplete``: it does not).
    """
    if not await store.is_ancestor(base, commit):
        raise _incomplete(f"the work ({commit[:12]}) is not based on {base[:12]}")


def _check_header(file: BinaryIO, ref: str, commit: str) -> None:
    """Read a bundle up to its pack (gitformat-bundle(5))."""
    first = file.readline(100)
    if first not in (b"# v2 git bundle\n", b"# v3 git bundle\n"):
        raise _incomplete("what came is no bundle")
    refs: dict[bytes, bytes] = {}
    for _ in range(MAX_HEADER_LINES):
        line = file.readline(MAX_HEADER_LINE)
        if line == b"\n":
            break
        if not line.endswith(b"\n") or line.startswith(b"@filter"):
            raise _incomplete("what came is no whole bundle")
        if not line.startswith((b"@", b"-")):
            value, _, name = line.rstrip(b"\n").partition(b" ")
            refs[name] = value
    else:
        raise _incomplete("the bundle needs more commits than there can be")
    if refs != {ref.encode(): commit.encode()}:
        found = refs.get(ref.encode(), b"not there")[:12].decode("utf-8", "replace")
        raise _incomplete(f"{ref} was to be at {commit[:12]} and is {found}")


def _incomplete(message: str) -> RepositoryProblem:
    return RepositoryProblem(RepositoryReason.INCOMPLETE, message)


def _expect(code: int, store: ObjectStore, errors: str) -> None:
    if code != 0:
        raise RepositoryProblem(
            RepositoryReason.UNREADABLE,
            f"the object store {store.path} cannot be used: {detail(errors) or 'git failed'}",
        )
