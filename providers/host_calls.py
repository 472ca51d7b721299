"""What a worker host does for a controller: the port's calls, on paths that the host decides.

A controller names swarms, jobs and an archive's place below the host's own folder for archives.
Where workers live and where git objects are shared is this side's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from providers.base import Provider, ProviderError, SwarmHandle
from providers.host_values import HostArguments, status_value

_OURS = frozenset({"stores", "hint"})
"""Fields of a worker's configuration that only the host knows."""


class Calls:
    """The port over arguments that came from outside (a ``worker.connection.Service``).

    Args:
        provider: does the work.
        archives: folder of all archives, absolute.
        workspace_roots: folders below which a swarm's ``workspaceRoot`` may be.
    """

    name = "the worker host"
    failed = "WorkerHostFailed"
    looks = frozenset({"observe", "flush"})
    lasting = frozenset({"archive"})

    def __init__(
        self, provider: Provider, archives: Path, workspace_roots: Sequence[Path] = ()
    ) -> None:
        self._provider = provider
        self._archives = archives
        self._roots = tuple(root.resolve() for root in workspace_roots)
        self._packing: dict[tuple[str, Path], asyncio.Task[Path]] = {}
        self._verbs: Mapping[str, Callable[[HostArguments], Awaitable[Any]]] = {
            "launch": self._launch,
            "observe": self._observe,
            "deliver": self._deliver,
            "stop": self._stop,
            "archive": self._archive,
            "remove": self._remove,
            "discard_store": self._discard_store,
        }

    async def perform(self, verb: str, told: Any) -> Any:
        """Do what is asked; what is to be answered, as JSON knows it.

        Raises: ProviderError and its kinds.
        """
        work = self._verbs.get(verb)
        if work is None:
            raise ProviderError("BadRequest", f"this worker host knows no call {verb!r}")
        return await work(HostArguments.of(told))

    def following(self, job: str, told: Any) -> Callable[[], None]:
        """What begins to read a job's outbox.

        Raises: ProviderError (``WorkspaceRootNotAllowed``, ``BadRequest``).
        """
        arguments = HostArguments.of(told)
        swarm = self.placed(arguments.swarm())
        index, offset = arguments.number("index"), arguments.number("offset")
        return lambda: self._provider.follow(swarm, job, index, offset)

    def placed(self, swarm: SwarmHandle) -> SwarmHandle:
        """A swarm that may live where it says.

        Raises: ProviderError (``WorkspaceRootNotAllowed``).
        """
        if not self._allowed(swarm):
            chosen = swarm.parameters.get("workspaceRoot")
            below = ", ".join(map(str, self._roots)) or "none"
            raise ProviderError(
                "WorkspaceRootNotAllowed",
                f"local.workspaceRoot: {chosen!r} is not below a folder that the worker host "
                f"allows (--workspace-root; there is: {below}): leave it out, or name such a one",
            )
        return swarm

    def _allowed(self, swarm: SwarmHandle) -> bool:
        chosen = swarm.parameters.get("workspaceRoot")
        if not chosen:
            return True
        try:
            path = Path(str(chosen)).expanduser()
            return path.is_absolute() and any(
                path.resolve().is_relative_to(root) for root in self._roots
            )
        except (OSError, RuntimeError, ValueError):
            return False

    async def _launch(self, arguments: HostArguments) -> None:
        request = arguments.launch()
        self.placed(request.swarm)
        config = {name: value for name, value in request.config.items() if name not in _OURS}
        await self._provider.launch([replace(request, config=config)])

    async def _observe(self, arguments: HostArguments) -> list[Any]:
        swarm = arguments.swarm()
        if not self._allowed(swarm):
            return []  # nothing was ever started there: it can be let go, or moved
        return [status_value(status) for status in await self._provider.observe(swarm)]

    async def _deliver(self, arguments: HostArguments) -> None:
        record = dict(arguments.table("record"))
        repository = record.get("repository")
        if isinstance(repository, dict):
            record["repository"] = {k: v for k, v in repository.items() if k != "store"}
        swarm, job = self.placed(arguments.swarm()), arguments.text("job")
        secrets = arguments.strings("secrets")
        await self._provider.deliver(
            swarm, job, arguments.number("index"), record, secrets=secrets or None
        )

    async def _stop(self, arguments: HostArguments) -> None:
        swarm = arguments.swarm()
        if self._allowed(swarm):
            jobs, force = arguments.texts("jobs"), arguments.flag("force")
            await self._provider.stop(swarm, jobs, force=force)

    async def _archive(self, arguments: HostArguments) -> str:
        swarm = self.placed(arguments.swarm())
        place = self._place(arguments.text("path"))
        key = (swarm.uid, place)
        packing = self._packing.get(key)
        if packing is None:
            packing = asyncio.get_running_loop().create_task(self._provider.archive(swarm, place))
            self._packing[key] = packing
            packing.add_done_callback(lambda done: self._packed(key, done))
        return str(await asyncio.shield(packing))

    def _packed(self, key: tuple[str, Path], done: asyncio.Task[Path]) -> None:
        del self._packing[key]
        if not done.cancelled():
            done.exception()  # whoever asked may be gone: then nobody looks at it

    def _place(self, path: str) -> Path:
        """Where below our archives a relative path leads. Raises: ProviderError."""
        below = PurePosixPath(path)
        place = self._archives / below
        leaves = below.is_absolute() or ".." in below.parts or "\0" in path
        if leaves or not place.resolve().is_relative_to(self._archives):
            raise ProviderError(
                "InvalidArchivePath",
                f"termination.archivePath: {path!r} leads out of the folder for archives",
            )
        return place

    async def _remove(self, arguments: HostArguments) -> None:
        swarm = arguments.swarm()
        jobs = None if arguments.values.get("jobs") is None else arguments.texts("jobs")
        if self._allowed(swarm):
            await self._provider.remove(swarm, jobs)

    async def _discard_store(self, arguments: HostArguments) -> None:
        await self._provider.discard_store(arguments.text("name"))
