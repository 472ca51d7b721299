"""Carries repositories to places whose workers do not reach them, and results back.

A carriage may take minutes, a pass of a task must not.  So each runs in a task of its own, those
who need it ask again, and are woken at its end.  All that is kept here may be lost: whatever a
carriage is repeated for, what is there already is not carried again.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from controller.reconcile.carriages import Carriages
from controller.repository.credentials import Credentials
from controller.repository.problems import RepositoryProblem, RepositoryReason
from controller.repository.service import Repositories
from controller.store.base import Key
from providers.base import (
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    RemoteStores,
    SwarmHandle,
)

PRESENT_SECONDS = 60.0
"""For so long it is taken for granted that what was seen at a place is there.  Work that was only
pushed there does not count: to look is also what marks it as there for workers."""
MAX_BUNDLE_BYTES = 4 << 30
"""Of one result: what comes from where agents run must not fill this machine."""
REFUSED_SECONDS = 900.0
"""For so long a place is not asked again to clone what it could not."""
AT_ONCE = 4
"""Results that are brought home at a time: a place takes only so many sessions."""
PUSH_AGAIN_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits between tries: a repository that refuses for some seconds must not cost a whole turn."""
_PREFIX = ".carried-"


@dataclass(frozen=True, slots=True)
class Route:
    """Between our store of a project and the one at a place."""

    project: Key
    stores: RemoteStores
    swarm: SwarmHandle
    name: str
    """``<project uid>.git``"""
    store: Path
    """Ours."""
    url: str
    """The user's repository."""
    credentials: Credentials | None = None

    @property
    def place(self) -> str:
        """Where it leads, in words."""
        return self.stores.place(self.swarm)

    @property
    def line(self) -> tuple[str, str]:
        """The same for all routes that lead to one store."""
        return self.place, self.name


@dataclass(frozen=True, slots=True)
class Load:
    """What a delivery needs at the other end."""

    branch: str
    base: str
    """A commit of that branch."""
    refs: Mapping[str, str]
    """Every commit that is needed, the base included, and a ref of the repository that has it."""
    offered: Mapping[str, str] = field(default_factory=dict)
    """Commits that would be of use; where they cannot be had, it goes on without."""

    @property
    def all(self) -> frozenset[str]:
        """Everything that is asked for."""
        return frozenset(self.refs) | frozenset(self.offered)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A result that is to come home."""

    ref: str
    head: str
    base: str
    """The commit that its attempt was pinned to."""
    known: Mapping[str, str]
    """Commits that it builds on, and refs of the user's repository that hold them."""
    branch: str = ""
    """Full name of the branch that moves too, if any."""
    expected: str = ""
    """The value that the branch must have for that; empty for absent."""


class Ferry:
    """All carriages of one controller.

    Args:
        repositories: our git.
        folder: where bundles lie as long as they travel.
        wake: asks for a pass.
        tell: tells of a carriage that took long (an object, a reason, a message).
    """

    def __init__(
        self,
        repositories: Repositories,
        folder: Path,
        wake: Callable[[Key], None],
        tell: Callable[[Key, str, str], None],
    ) -> None:
        self._repositories = repositories
        self._folder = folder
        self._carriages = Carriages(wake, tell)
        self._present: dict[tuple[str, str], dict[str, float]] = {}
        self._paths: dict[tuple[str, str], str] = {}
        self._refused: dict[tuple[str, str], float] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._lines: dict[tuple[str, str], asyncio.Lock] = {}
        self._swept = False

    # --- asking ----------------------------------------------------------------------------------

    async def send(self, route: Route, load: Load, asker: Key) -> str:
        """The store's path at the other end, once all that is needed is there.

        Raises: NotYet; RepositoryProblem; ProviderUnreachable, OutcomeUnknown (ask again).
        """
        line = route.line
        if self._is_present(line, load.all):
            return self._paths[line]
        return await self._carriages.result(
            (line, load.all),
            f"the repository to {route.place}",
            lambda: self._carry_out(route, load),
            asker,
        )

    async def bring(self, route: Route, parcel: Parcel, asker: Key) -> str:
        """Have a result in the user's repository: why its branch was left alone, or "".

        Raises: NotYet; RepositoryProblem (``BundleIncomplete``, ``PushRefused``, ...);
            ProviderError (``RefNotFound``, ...).
        """
        return await self._carriages.result(
            (route.line, parcel.ref, parcel.head, parcel.branch),
            f"the work from {route.place}",
            lambda: self._carry_home(route, parcel),
            asker,
        )

    def doubt(self, place: str, name: str) -> None:
        """Look again at what a store at a place has: a worker may not have found it."""
        self._present.pop((place, name), None)

    async def discard(self, stores: RemoteStores, swarm: SwarmHandle, name: str) -> None:
        """Remove a project's store at a place; nothing more is carried there.

        Raises: ProviderError.
        """
        line = (stores.place(swarm), name)
        await self._carriages.end(lambda key: isinstance(key, tuple) and key[0] == line)
        self._present.pop(line, None)
        self._lines.pop(line, None)
        await stores.discard(swarm, name)

    async def leave_off(self, name: str) -> None:
        """Carry nothing more of a project whose stores have this name, wherever it goes."""
        await self._carriages.end(lambda key: isinstance(key, tuple) and key[0][1] == name)

    async def close(self) -> None:
        """Leave off whatever is under way: it is begun again by the next controller."""
        await self._carriages.end()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    # --- outward ---------------------------------------------------------------------------------

    def _is_present(self, line: tuple[str, str], commits: Iterable[str]) -> bool:
        seen, now = self._present.get(line, {}), self._now()
        return line in self._paths and all(seen.get(c, 0.0) > now for c in commits)

    def _saw(self, line: tuple[str, str], commits: Iterable[str]) -> None:
        until = self._now() + PRESENT_SECONDS
        seen = self._present.setdefault(line, {})
        for commit in [c for c, end in seen.items() if end < self._now()]:
            del seen[commit]
        seen.update(dict.fromkeys(commits, until))

    async def _carry_out(self, route: Route, load: Load) -> str:
        async with self._lines.setdefault(route.line, asyncio.Lock()):
            if not self._is_present(route.line, load.all):
                await self._supply(route, load)
        return self._paths[route.line]

    async def _supply(self, route: Route, load: Load) -> None:
        stores, swarm, name = route.stores, route.swarm, route.name
        with _as_problem(route):
            self._paths[route.line] = await stores.locate(swarm, name)
            lacking = await stores.lacking(swarm, name, load.all)
        missing = {commit: ref for commit, ref in load.refs.items() if commit in lacking}
        if load.base in missing and await self._cloned(route, load):
            del missing[load.base]
        if missing:
            await self._put(route, missing)
        more = {c: r for c, r in load.offered.items() if c in lacking and c not in load.refs}
        if more:
            with suppress(RepositoryProblem):
                await self._put(route, more)
        self._saw(route.line, load.all)

    async def _cloned(self, route: Route, load: Load) -> bool:
        """Whether the place could fetch the base by itself."""
        key = (route.place, route.url)
        if not route.url.startswith(("https://", "http://")):
            return False
        if self._refused.get(key, 0.0) > self._now():
            return False
        try:
            await route.stores.clone(route.swarm, route.name, route.url, load.branch, load.base)
        except (ProviderUnreachable, OutcomeUnknown):
            raise
        except ProviderError:
            self._refused[key] = self._now() + REFUSED_SECONDS
            return False
        return True

    async def _put(self, route: Route, refs: Mapping[str, str]) -> None:
        """Send commits from here.

        Raises: RepositoryProblem, ProviderUnreachable, OutcomeUnknown.
        """
        repositories = self._repositories
        await repositories.hold(route.store, route.url, refs, route.credentials)
        with _as_problem(route):
            tips = await route.stores.tips(route.swarm, route.name)
            async with self._bundle() as bundle:
                await repositories.pack(route.store, list(refs), tips, bundle)
                try:
                    await route.stores.put(route.swarm, route.name, bundle, list(refs))
                except (ProviderUnreachable, OutcomeUnknown):
                    raise
                except ProviderError:
                    if not tips:
                        raise
                    bundle.unlink(missing_ok=True)  # it does not have what it said: send all
                    await repositories.pack(route.store, list(refs), (), bundle)
                    await route.stores.put(route.swarm, route.name, bundle, list(refs))

    # --- homeward --------------------------------------------------------------------------------

    async def _carry_home(self, route: Route, parcel: Parcel) -> str:
        async with self._turns.setdefault(route.place, asyncio.Semaphore(AT_ONCE)):
            at_home = await self._repositories.ref_value(route.url, parcel.ref, route.credentials)
            held = bool(await self._repositories.held(route.store, [parcel.head]))
            if not held and at_home != parcel.head:
                await self._get(route, parcel)
            else:
                if not held:
                    refs = {parcel.head: parcel.ref}
                    await self._repositories.hold(route.store, route.url, refs, route.credentials)
                await self._repositories.check_base(route.store, parcel.head, parcel.base)
        return await self._push(route, parcel, at_home)

    async def _get(self, route: Route, parcel: Parcel) -> None:
        repositories = self._repositories
        if parcel.known:  # so that only what is new has to travel
            try:
                await repositories.hold(route.store, route.url, parcel.known, route.credentials)
            except RepositoryProblem as problem:
                if problem.transient:
                    raise
        known = await repositories.held(route.store, list(parcel.known))
        async with self._bundle() as bundle:
            await route.stores.get(
                *(route.swarm, route.name, parcel.ref, sorted(known), bundle),
                limit=MAX_BUNDLE_BYTES,
            )
            await repositories.unpack(route.store, bundle, parcel.ref, parcel.head, parcel.base)

    async def _push(self, route: Route, parcel: Parcel, at_home: str) -> str:
        """Push the attempt's ref and the branch, as a worker does where it reaches them."""
        refs = {parcel.ref: parcel.head}
        expected = {parcel.ref: at_home}
        if parcel.branch:
            refs[parcel.branch] = parcel.head
            expected[parcel.branch] = parcel.expected
        elif at_home == parcel.head:
            return ""
        branch = None
        for wait in (*PUSH_AGAIN_SECONDS, None):
            results = await self._repositories.bring(
                route.store, route.url, refs, expected, route.credentials
            )
            branch = results.get(parcel.branch)
            refused = [r for r in results.values() if not r.accepted and r is not branch]
            if branch is not None and not (branch.accepted or branch.stale):
                refused.append(branch)
            if not refused:
                break
            if wait is None:
                raise RepositoryProblem(
                    RepositoryReason.REFUSED,
                    f"{route.url} refuses {refused[0].ref}: {refused[0].message}",
                )
            await asyncio.sleep(wait)
            expected[parcel.ref] = await self._repositories.ref_value(
                route.url, parcel.ref, route.credentials
            )
        if branch is None or branch.accepted:
            return ""
        return (
            f"branch {parcel.branch.removeprefix('refs/heads/')} was moved by somebody else and "
            f"is left alone; the work is at {parcel.ref}"
        )

    # --- files -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _bundle(self) -> AsyncIterator[Path]:
        """A name for a bundle file, in a folder that lives as long."""
        try:
            await asyncio.to_thread(self._prepare)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._folder))
        except OSError as error:
            raise RepositoryProblem(
                RepositoryReason.UNREADABLE, f"{self._folder} cannot be written: {error}"
            ) from error
        try:
            yield folder / "bundle"
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _prepare(self) -> None:
        """Make the folder, and remove what a controller that was killed has left in it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            for left in self._folder.glob(f"{_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _as_problem(route: Route) -> Iterator[None]:
    """What a place refuses, it will refuse the next time too; without contact nothing is known."""
    try:
        yield
    except (ProviderUnreachable, OutcomeUnknown):
        raise
    except ProviderError as error:
        raise RepositoryProblem(
            error.reason, f"the repository cannot be sent to {route.place}: {error}"
        ) from error
