"""A project's shared object store: a bare repository that commits of its remote are fetched to.

Workers on the same host make and use the same store (their checkouts have alternates on it).
Whoever comes first makes it, under a lock on ``<path>.lock``; nothing in it is ever collected.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from controller.repository import pushes
from controller.repository.credentials import Credentials
from controller.repository.git import Git, Result, ceiling, inside
from controller.repository.problems import (
    RepositoryProblem,
    RepositoryReason,
    detail,
    from_git,
)
from controller.repository.pushes import PushResult
from controller.repository.urls import is_ref_name, locate

KEPT = "refs/controller/"
"""Where fetched refs are kept in the store, apart from those that workers use."""
LOCK_POLL_SECONDS = 0.02
_WORKERS_FOLDERS = ("have", "refs/base")
"""What workers expect to find in a store that is there (see worker/objectstore.py)."""


class ObjectStore:
    """One store; safe to use from several tasks and processes at once."""

    def __init__(self, git: Git, path: Path) -> None:
        self._git = git
        self.path = path
        self.fetching = asyncio.Lock()
        """Two fetches at once would meet at the refs that both set."""

    @property
    def is_made(self) -> bool:
        """Whether the store is there."""
        return _is_made(self.path)

    async def ensure(self, oid: str = "") -> None:
        """Make the store if it is not there, for objects with names like ``oid``.

        Raises: RepositoryProblem (``RepositoryUnreadable``) if that fails.
        """
        if _is_made(self.path):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, str(error)) from error
        try:
            await _lock(descriptor)
            if not _is_made(self.path):
                await self._init(oid)
        finally:
            os.close(descriptor)

    async def _init(self, oid: str) -> None:
        part = self.path.with_name(self.path.name + ".part")
        await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
        form = ["--object-format=sha256"] if len(oid) == 64 else []
        made = await self._git.run(
            "init", "--quiet", "--bare", "--template=", *form, "--", str(part)
        )
        kept = await self._git.run(*inside(part), "config", "gc.auto", "0", variables=ceiling(part))
        for result in (made, kept):
            if result.code != 0:
                raise _unusable(self.path, detail(result.err))
        for folder in _WORKERS_FOLDERS:
            (part / folder).mkdir(parents=True, exist_ok=True)
        part.replace(self.path)

    async def fetch(
        self,
        url: str,
        refs: Collection[str],
        credentials: Credentials | None = None,
        *,
        kept: str = KEPT,
    ) -> None:
        """Bring the commits of these refs (full names), and all they build on, into the store.

        ``kept`` is where the store has them then, instead of below ``refs/``.

        Raises: RepositoryProblem; for a ref that is not at the remote as well, as
            ``RepositoryUnreadable``: look at the remote again.
        """
        await self.ensure()
        for ref in refs:
            if not is_ref_name(ref):
                raise ValueError(f"not a full ref name: {ref!r}")
        specs = [f"+{ref}:{kept}{ref.removeprefix('refs/')}" for ref in refs]
        if not specs:
            return
        async with self.fetching:
            result = await self.run(
                *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--stdin"),
                *("--", locate(url).url),
                stdin="\n".join(specs) + "\n",
                credentials=credentials,
            )
        if result.code != 0:
            raise from_git(url, result.err)

    async def contains(self, commits: Iterable[str]) -> set[str]:
        """Those of the commits that the store has (each a full hash)."""
        asked = list(dict.fromkeys(commits))
        if not asked:
            return set()
        result = await self.run(
            "cat-file",
            "--batch-check=%(objectname) %(objecttype)",
            stdin="".join(f"{commit}\n" for commit in asked),
        )
        if result.code != 0:
            raise _unusable(self.path, detail(result.err))
        found = {line.removesuffix(" commit") for line in result.out.splitlines()}
        return found.intersection(asked)

    async def reachable(self, heads: Collection[str], tips: Collection[str]) -> set[str]:
        """Those of the heads that are one of the tips or an ancestor of one.

        Costs two commands for any number of heads.  A head or tip that the store does not have
        counts as not reachable and not there; so fetch the tips' refs first.
        """
        present = await self.contains([*heads, *tips])
        asked = [head for head in dict.fromkeys(heads) if head in present]
        ends = [tip for tip in dict.fromkeys(tips) if tip in present]
        if not asked or not ends:
            return set()
        result = await self.run(
            "rev-list", "--stdin", stdin="\n".join([*asked, *(f"^{tip}" for tip in ends), ""])
        )
        if result.code != 0:
            raise _unusable(self.path, detail(result.err))
        return set(asked).difference(result.out.split())

    async def is_ancestor(self, commit: str, of: str) -> bool:
        """Whether ``of`` is ``commit`` or builds on it; False if the store lacks either."""
        return commit in await self.reachable([commit], [of])

    async def put(
        self,
        url: str,
        refs: Mapping[str, str],
        expected: Mapping[str, str],
        credentials: Credentials | None = None,
    ) -> dict[str, PushResult]:
        """Set refs of a remote to commits of the store (see ``pushes.put``)."""
        await self.ensure()
        return await pushes.put(self._git, self.path, url, refs, expected, credentials=credentials)

    async def delete(
        self, url: str, expected: Mapping[str, str], credentials: Credentials | None = None
    ) -> dict[str, PushResult]:
        """Delete refs of a remote that still have these values (see ``pushes.delete``)."""
        await self.ensure()
        return await pushes.delete(self._git, self.path, url, expected, credentials=credentials)

    @property
    def run(self) -> Callable[..., Awaitable[Result]]:
        """Runs a git command on the store (see ``Git.run``)."""
        return partial(self._git.run, *inside(self.path), variables=ceiling(self.path))


def _is_made(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


async def _lock(descriptor: int) -> None:
    """Wait for an exclusive lock without holding up the event loop."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(LOCK_POLL_SECONDS)
        else:
            return


def _unusable(path: Path, what: str) -> RepositoryProblem:
    return RepositoryProblem(
        RepositoryReason.UNREADABLE, f"the object store {path} cannot be used: {what}"
    )
