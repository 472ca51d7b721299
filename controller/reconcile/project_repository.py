"""A Project's repository: where it is, what its base is, and what its refs are now."""

from __future__ import annotations

from pathlib import Path

from controller.reconcile.context import Context
from controller.reconcile.project_status import ProjectStatus
from controller.repository.credentials import DEFAULT_USERNAME, Credentials
from controller.repository.problems import RepositoryProblem
from controller.repository.remote import RemoteState
from controller.repository.urls import Location, is_relative, resolve_url
from controller.resources.texts import Unresolved, resolve_path
from controller.store.base import Key, Resource, key_of

BASE_DIR = "codeswarm.dev/base-dir"
FRESH_SECONDS = 25.0
"""A look at the remote that is younger than this is good enough for a pass."""


def credentials_of(ctx: Context, obj: Resource) -> Credentials | None:
    """What git needs to reach the remote. Raises: RepositoryProblem."""
    spec = obj["spec"]["repository"].get("credentials") or {}
    if not spec:
        return None
    values: dict[str, str] = {}
    for field in ("tokenFrom", "sshKeyFrom"):
        if field in spec:
            value = ctx.secret(obj, spec[field], f"repository.credentials.{field}")
            if isinstance(value, Unresolved):
                raise RepositoryProblem(value.reason, value.message)
            values[field] = value
    return Credentials(
        username=spec.get("username", DEFAULT_USERNAME),
        token=values.get("tokenFrom", ""),
        ssh_key=values.get("sshKeyFrom", ""),
        known_hosts=spec.get("knownHosts", ""),
    )


class ProjectRepository:
    """Looks at remotes, and keeps what was seen in the world."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._seen: dict[Key, tuple[float, tuple[str, int], RemoteState]] = {}

    def forget(self, key: Key) -> None:
        """A Project is gone."""
        self._seen.pop(key, None)

    async def look(self, obj: Resource, status: ProjectStatus) -> RemoteState:
        """The remote as it is (now, or a moment ago), put into status and world.

        The base commit is pinned at the first look; it moves only with ``followBase``.

        Raises: RepositoryProblem.
        """
        key, meta = key_of(obj), obj["metadata"]
        shape = (meta["uid"], meta["generation"])
        known = self._seen.get(key)
        info = self._ctx.world.projects.get(key)
        if known and known[1] == shape and self._ctx.clock.now() - known[0] < FRESH_SECONDS:
            state = known[2]
        else:
            before = dict(info.refs) if info else {}
            state = await self._inspect(obj)
            self._seen[key] = (self._ctx.clock.now(), shape, state)
            self._ctx.seen_refs(key, before, state.refs)
        commit = state.base_commit or ""
        status.repository(state.url, state.base_branch, commit)
        return state

    def _locate(self, obj: Resource, url: str) -> Location:
        """Where the repository is. Raises: RepositoryProblem."""
        if self._ctx.sources.files or not is_relative(url):
            folder = (obj["metadata"].get("annotations") or {}).get(BASE_DIR)
            return resolve_url(url, Path(folder) if folder else None)
        found = resolve_path(obj, url, "repository.url", self._ctx.sources)
        if isinstance(found, Unresolved):
            raise RepositoryProblem(found.reason, found.message)
        return resolve_url(str(found))

    async def _inspect(self, obj: Resource) -> RemoteState:
        spec = obj["spec"]["repository"]
        location = self._locate(obj, spec["url"])
        credentials = credentials_of(self._ctx, obj)
        repositories, name = self._ctx.repositories, obj["metadata"]["name"]
        branch = spec.get("baseBranch")
        state = await repositories.inspect(location.url, branch, name, credentials, fresh=True)
        if state.base_commit is None:
            store = self._ctx.stores / f"{obj['metadata']['uid']}.git"
            await repositories.ensure_base(location.url, state.base_branch, store, credentials)
            state = await repositories.inspect(
                location.url, state.base_branch, name, credentials, fresh=True
            )
        return state
