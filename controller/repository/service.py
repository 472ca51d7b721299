"""The controller's way to repositories: shared looks at remotes, refs, first commits, stores."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path

from controller.repository import bundles, pushes, remote
from controller.repository.credentials import Credentials
from controller.repository.flights import Flights
from controller.repository.git import Git
from controller.repository.objects import ObjectStore
from controller.repository.pushes import PushResult
from controller.repository.remote import RemoteState
from controller.repository.urls import locate

OUR_REFS = "refs/codeswarm/"
CARRY_SECONDS = 3600.0
"""For one command on a repository that is carried elsewhere, however large it is."""


class Repositories:
    """Everything that reconcilers ask of git; one for each controller.

    Args:
        git: runs the commands, and limits how many at a time.
        max_age: seconds for which a look at a remote serves later askers too.
        check: asked before a remote is changed; raises, if this process may not do that any more.
    """

    def __init__(
        self,
        git: Git | None = None,
        *,
        max_age: float = 1.0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.git = git or Git()
        self._check = check
        self._states: Flights[RemoteState] = Flights(max_age=max_age)
        self._refs: Flights[dict[str, str]] = Flights(max_age=0.0)
        self._stores: dict[Path, ObjectStore] = {}
        self._carriers = Git(deadline=CARRY_SECONDS)
        """Apart from the others: what takes minutes must not keep looks at remotes waiting."""
        self._carried_stores: dict[Path, ObjectStore] = {}

    async def inspect(
        self,
        url: str,
        base_branch: str | None,
        project: str,
        credentials: Credentials | None = None,
        *,
        fresh: bool = False,
    ) -> RemoteState:
        """What a remote holds of a project (see ``remote.inspect``).

        Askers at the same time share one look; ``fresh`` asks for one that begins now.

        Raises: RepositoryProblem.
        """

        async def look() -> RemoteState:
            return await remote.inspect(self.git, url, base_branch, project, credentials)

        key = (url, base_branch, project, credentials)
        return await (self._states.fresh if fresh else self._states.recent)(key, look)

    async def ref_value(self, url: str, ref: str, credentials: Credentials | None = None) -> str:
        """The commit that a ref of the remote is at now; empty if it is not there.

        Raises: RepositoryProblem.
        """
        value = remote.read_loose_ref(url, ref)
        if value:
            return value
        pattern = f"{OUR_REFS}*" if ref.startswith(OUR_REFS) else ref

        async def look() -> dict[str, str]:
            return await remote.list_refs(self.git, url, [pattern], credentials)

        return (await self._refs.fresh((url, pattern, credentials), look)).get(ref, "")

    async def ensure_base(
        self, url: str, branch: str, store: Path, credentials: Credentials | None = None
    ) -> str:
        """Give an empty repository its first commit (see ``remote.ensure_base``).

        Args:
            store: path of the project's object store.

        Raises: RepositoryProblem.
        """
        self._check()
        if not locate(url).local:
            await self.store(store).ensure()
        try:
            return await remote.ensure_base(self.git, url, branch, store, credentials)
        finally:
            self.forget(url)

    def store(self, path: Path) -> ObjectStore:
        """The object store at a path; made when it is first needed."""
        known = self._stores.get(path)
        if known is None:
            known = self._stores[path] = ObjectStore(self.git, path)
        return known

    async def discard(self, path: Path) -> None:
        """Remove an object store whose project is gone; one that is not there is fine."""
        self._stores.pop(path, None)
        self._carried_stores.pop(path, None)
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)

    async def put(
        self,
        store: Path,
        url: str,
        refs: Mapping[str, str],
        expected: Mapping[str, str],
        credentials: Credentials | None = None,
    ) -> dict[str, PushResult]:
        """Set refs of a remote to commits of a store (see ``pushes.put``).

        Raises: RepositoryProblem.
        """
        return await self._put(self.store(store), url, refs, expected, credentials)

    async def held(self, store: Path, commits: Collection[str]) -> set[str]:
        """Those of the commits that a store holds whole (see ``bundles.held``).

        Raises: RepositoryProblem.
        """
        return await bundles.held(self._carried(store), commits)

    async def hold(
        self,
        store: Path,
        url: str,
        wanted: Mapping[str, str],
        credentials: Credentials | None = None,
    ) -> None:
        """Have commits of a remote in a store (see ``bundles.hold``).

        Raises: RepositoryProblem.
        """
        await bundles.hold(self._carried(store), url, wanted, credentials)

    async def pack(
        self, store: Path, commits: Collection[str], known: Collection[str], bundle: Path
    ) -> None:
        """Write commits that a store holds to a bundle file (see ``bundles.pack``).

        Raises: RepositoryProblem.
        """
        await bundles.pack(self._carried(store), commits, known, bundle)

    async def unpack(self, store: Path, bundle: Path, ref: str, commit: str, base: str) -> None:
        """Take a commit from a bundle file that came from elsewhere (see ``bundles.unpack``).

        Raises: RepositoryProblem.
        """
        await bundles.unpack(self._carried(store), bundle, ref, commit, base)

    async def check_base(self, store: Path, commit: str, base: str) -> None:
        """See that a commit in a store builds on another (see ``bundles.check_base``).

        Raises: RepositoryProblem.
        """
        await bundles.check_base(self._carried(store), commit, base)

    def _carried(self, store: Path) -> ObjectStore:
        known = self._carried_stores.get(store)
        if known is None:
            known = self._carried_stores[store] = ObjectStore(self._carriers, store)
        return known

    async def bring(
        self,
        store: Path,
        url: str,
        refs: Mapping[str, str],
        expected: Mapping[str, str],
        credentials: Credentials | None = None,
    ) -> dict[str, PushResult]:
        """As ``put``, for commits that came from elsewhere and may be many.

        Raises: RepositoryProblem.
        """
        return await self._put(self._carried(store), url, refs, expected, credentials)

    async def _put(
        self,
        store: ObjectStore,
        url: str,
        refs: Mapping[str, str],
        expected: Mapping[str, str],
        credentials: Credentials | None,
    ) -> dict[str, PushResult]:
        self._check()
        try:
            return await store.put(url, refs, expected, credentials)
        finally:
            self.forget(url)

    async def delete(
        self,
        store: Path,
        url: str,
        expected: Mapping[str, str],
        credentials: Credentials | None = None,
    ) -> dict[str, PushResult]:
        """Delete refs of a remote that still have these values (see ``pushes.delete``).

        Raises: RepositoryProblem.
        """
        self._check()
        try:
            return await self.store(store).delete(url, expected, credentials)
        finally:
            self.forget(url)

    async def push_to_origin(
        self,
        url: str,
        refs: Mapping[str, str],
        known: Collection[str] = (),
        credentials: Credentials | None = None,
    ) -> dict[str, PushResult] | None:
        """Send refs of a local repository on to its ``origin`` (see ``pushes.push_to_origin``).

        None if the URL is not local, or the repository has no ``origin``.

        Raises: RepositoryProblem.
        """
        self._check()
        location = locate(url)
        if not location.local:
            return None
        return await pushes.push_to_origin(self.git, Path(location.url), refs, known, credentials)

    def forget(self, url: str) -> None:
        """Look again at this remote next time: something there was changed."""

        def concerns(key: Hashable) -> bool:
            return isinstance(key, tuple) and key[0] == url

        self._states.forget(concerns)
