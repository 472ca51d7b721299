"""The shared object store of one project on one host: fetched once, used by all its workers.

Where workers do not reach the user's repository, the store itself is their repository: what a
turn needs was put into it before (worker/attendant/stores.py), and results are pushed to it.

A bare repository that only grows: no gc, nothing is pruned.  ``have/<commit>`` says that the
commit and all it reaches are there (a fetch that is killed may leave half of it), and
``refs/base/<commit>`` tells git so for base commits, to make the next fetch small.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.errors import TurnError
from worker.git import Git, GitError, config_text
from worker.locks import lock
from worker.records import DependencyRef, MergeRef, RepositoryRef
from worker.trees import remove_tree

VISIBLE_SECONDS = 60.0
"""As long may a shared file system take to show here what was written on another host: NFS keeps
what it knows of a folder for up to so long (``acdirmax``, nfs(5))."""

_LOCK_PAUSE = 0.01  # seconds
_LOOK_PAUSE = 1.0


@dataclass(frozen=True)
class Remote:
    """Where to fetch from and push to, with what git needs to be let in."""

    url: str
    env: Mapping[str, str]
    options: Sequence[str] = ()
    """For git itself, before the command."""


class ObjectStore:
    """One store.

    Args:
        path: the bare repository; made when first needed.
        git: the turn's git.
    """

    def __init__(self, path: Path, git: Git) -> None:
        self.path = path
        self._git = git.with_dir(path)

    @property
    def objects(self) -> Path:
        """The object folder, for ``alternates``."""
        return self.path / "objects"

    def provide(
        self,
        repository: RepositoryRef,
        heads: Sequence[DependencyRef] | Sequence[MergeRef],
        remote: Remote,
    ) -> None:
        """Have the base commit and these heads here, fetching what is missing.

        Raises: TurnError, Interrupted, OSError.
        """
        base = repository["base_commit"]
        if remote.url == str(self.path):
            self._await([base, *(head["commit"] for head in heads)])
            return
        if self._has(base) and all(self._has(head["commit"]) for head in heads):
            return
        with self._lock():
            self._make(base)
            if not self._has(base):
                self._fetch_base(base, repository["base_branch"], remote)
            missing = [head for head in heads if not self._has(head["commit"])]
            if missing:
                self._fetch_heads(missing, remote)

    def offer(self, head: DependencyRef, remote: Remote) -> bool:
        """Have a commit here that would be of use; whether it is. That it cannot be had is no harm.

        Raises: Interrupted, OSError.
        """
        if self._has(head["commit"]):
            return True
        try:
            with self._lock():
                self._fetch_heads([head], remote)
        except TurnError:
            return False
        return True

    def _await(self, commits: Sequence[str]) -> None:
        """Wait until this host sees commits that were put here from another one."""
        end = time.monotonic() + VISIBLE_SECONDS
        while not self._sees(commits):
            if time.monotonic() > end:
                raise TurnError(
                    "infrastructure",
                    f"the store {self.path} does not have what was sent to it; it is sent again "
                    "with the next attempt",
                )
            self._git.scope.sleep(_LOOK_PAUSE)
            self._look_anew()

    def _sees(self, commits: Sequence[str]) -> bool:
        if not all(map(self._has, commits)):
            return False
        walk = ("rev-list", "--no-walk", "--quiet", *commits)
        return self._git.run(*walk, ok=(0, 128)).exit_code == 0

    def _look_anew(self) -> None:
        """Change the folders that git lists, so that this host forgets what it knew of them."""
        for folder in (self.path / "have", self.objects / "pack"):
            probe = folder / f".look-{os.getpid()}"
            try:
                probe.touch()
                probe.unlink()
            except OSError:
                continue

    def _has(self, commit: str) -> bool:
        return (self.path / "have" / commit).exists()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.path.with_name(self.path.name + ".lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while True:
                try:
                    lock(handle, wait=False)
                    break
                except BlockingIOError:
                    self._git.scope.sleep(_LOCK_PAUSE)
            yield
        finally:
            os.close(handle)

    def _make(self, oid: str) -> None:
        if (self.path / "HEAD").exists():
            return
        part = self.path.with_name(self.path.name + ".part")
        remove_tree(part)
        for folder in ("objects/info", "objects/pack", "refs/base", "have"):
            (part / folder).mkdir(parents=True)
        (part / "config").write_text(config_text(oid, bare=True))
        (part / "HEAD").write_text("ref: refs/heads/none\n")
        remove_tree(self.path)
        part.replace(self.path)

    def _fetch_base(self, base: str, branch: str, remote: Remote) -> None:
        try:
            self._fetch([f"refs/heads/{branch}"], remote)
        except GitError as error:
            # The branch may have gone or been renamed since; the commit itself may be there.
            self._fetch_commit(base, remote, error)
        if not self._complete([base]):
            self._fetch_commit(base, remote, None)
        if not self._complete([base]):
            raise TurnError(
                "infrastructure",
                f"the base commit {base[:12]} of {branch} cannot be fetched from {remote.url}",
            )
        part = self.path / "base.part"  # not below refs/: git would take a half of it for a ref
        part.write_text(f"{base}\n")
        part.replace(self.path / "refs" / "base" / base)
        self._mark([base])

    def _fetch_commit(self, commit: str, remote: Remote, earlier: GitError | None) -> None:
        try:
            self._fetch([commit], remote)
        except GitError as error:
            raise earlier or error from None

    def _fetch_heads(
        self, heads: Sequence[DependencyRef] | Sequence[MergeRef], remote: Remote
    ) -> None:
        commits = sorted({head["commit"] for head in heads})
        self._fetch(sorted({head["ref"] for head in heads}), remote)
        if not self._complete(commits):
            self._fetch(commits, remote)
            if not self._complete(commits):
                names = ", ".join(f"{head['task']} ({head['commit'][:12]})" for head in heads)
                raise TurnError("infrastructure", f"{remote.url} lacks commits of {names}")
        self._mark(commits)

    def _fetch(self, refs: Sequence[str], remote: Remote) -> None:
        self._git.run(
            *remote.options,
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--",
            remote.url,
            *refs,
            env=remote.env,
        )

    def _complete(self, commits: Sequence[str]) -> bool:
        """Whether everything that these commits reach is in the store."""
        walk = ("rev-list", "--objects", "--quiet", *commits, "--not", "--all")
        return self._git.run(*walk, ok=(0, 128)).exit_code == 0

    def _mark(self, commits: Sequence[str]) -> None:
        for commit in commits:
            (self.path / "have" / commit).touch()
