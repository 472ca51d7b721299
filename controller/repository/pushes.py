"""Putting refs to a remote and taking them away, each with a lease and a result of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.repository.credentials import Credentials
from controller.repository.git import Git
from controller.repository.problems import (
    RepositoryProblem,
    RepositoryReason,
    check_local,
    from_git,
)
from controller.repository.remote import list_refs
from controller.repository.urls import Location, is_ref_name, locate, resolve_url

BATCH = 500
"""Refs of one push, so that a command line stays within what the system takes."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of one ref."""

    ref: str
    accepted: bool
    """The ref has the value that was asked for (or is gone, for a deletion)."""
    message: str = ""
    """Git's own word: ``stale info``, ``branch is currently checked out``."""

    @property
    def stale(self) -> bool:
        """Refused because the ref did not have the expected value."""
        return not self.accepted and self.message in (
            "stale info",
            "fetch first",
            "non-fast-forward",
        )


async def put(
    git: Git,
    store: Path,
    url: str,
    refs: Mapping[str, str],
    expected: Mapping[str, str],
    *,
    credentials: Credentials | None = None,
) -> dict[str, PushResult]:
    """Set refs of a remote to commits that the store has.

    A ref in ``expected`` is set only if it has that value ("" for absent), whatever the commit;
    one that is not, only if that is a fast-forward.  Nothing is ever forced.

    Raises: RepositoryProblem if the remote cannot be reached.
    """
    if any(not value for value in refs.values()):
        raise ValueError("a ref cannot be set to nothing; use delete")
    wanted = {ref: f"{commit}:{ref}" for ref, commit in refs.items()}
    return await _push(git, store, url, wanted, expected, credentials=credentials)


async def delete(
    git: Git,
    store: Path,
    url: str,
    expected: Mapping[str, str],
    *,
    credentials: Credentials | None = None,
) -> dict[str, PushResult]:
    """Delete refs of a remote that still have the given values; absent ones count as deleted.

    Raises: RepositoryProblem if the remote cannot be reached.
    """
    wanted = {ref: f":{ref}" for ref in expected}
    results = await _push(git, store, url, wanted, expected, credentials=credentials)
    refused = [ref for ref, result in results.items() if not result.accepted]
    if refused:
        present = await list_refs(git, url, _patterns(refused), credentials)
        for ref in refused:
            if ref not in present:
                results[ref] = PushResult(ref, accepted=True, message="was not there")
    return results


def _patterns(refs: Iterable[str]) -> list[str]:
    found = list(refs)
    return found if len(found) <= BATCH else []


async def _push(
    git: Git,
    store: Path,
    url: str,
    wanted: Mapping[str, str],
    expected: Mapping[str, str],
    *,
    credentials: Credentials | None,
) -> dict[str, PushResult]:
    for ref in wanted:
        if not is_ref_name(ref):
            raise ValueError(f"not a full ref name: {ref!r}")
    location = locate(url)
    if wanted and location.local:
        check_local(location.url)
    results: dict[str, PushResult] = {}
    names = list(wanted)
    for start in range(0, len(names), BATCH):
        batch = {ref: wanted[ref] for ref in names[start : start + BATCH]}
        results |= await _push_batch(git, store, location, batch, expected, credentials=credentials)
    return results


async def _push_batch(
    git: Git,
    store: Path,
    location: Location,
    batch: Mapping[str, str],
    expected: Mapping[str, str],
    *,
    credentials: Credentials | None,
) -> dict[str, PushResult]:
    leases = [f"--force-with-lease={ref}:{expected[ref]}" for ref in batch if ref in expected]
    result = await git.run(
        *("-C", str(store), "push", "--porcelain", "--no-verify", *leases),
        *("--", location.url, *batch.values()),
        credentials=credentials,
    )
    results = parse_porcelain(result.out)
    if result.code != 0 and not results:
        raise from_git(location.url, result.err)
    for ref in batch:
        if ref not in results:
            results[ref] = PushResult(ref, accepted=False, message="git did not answer for it")
    return results


def parse_porcelain(out: str) -> dict[str, PushResult]:
    """The results that ``git push --porcelain`` prints, by ref of the remote.

    A line is ``<flag>\\t<from>:<to>\\t<summary> (<reason>)``; see git-push(1).
    """
    results: dict[str, PushResult] = {}
    for line in out.splitlines():
        parts = line.split("\t", 2)
        if len(parts) != 3 or len(parts[0]) != 1 or ":" not in parts[1]:
            continue
        flag, ref, summary = parts[0], parts[1].rpartition(":")[2], parts[2]
        reason = summary[summary.find("(") + 1 : -1] if summary.endswith(")") else summary
        results[ref] = PushResult(ref, accepted=flag != "!", message=reason if flag == "!" else "")
    return results


async def origin_url(git: Git, repository: Path) -> str:
    """Where a local repository's ``origin`` is pushed to; empty if it has none."""
    result = await git.run("-C", str(repository), "remote", "get-url", "--push", "origin")
    return result.out.strip() if result.code == 0 else ""


async def push_to_origin(
    git: Git,
    repository: Path,
    refs: Mapping[str, str],
    known: Iterable[str],
    credentials: Credentials | None = None,
) -> dict[str, PushResult] | None:
    """Send refs of a local repository on to its ``origin``; None if it has none.

    Args:
        refs: full ref names to commits, all in the repository.
        known: commits that are ours: a ref that has one of these may be replaced by a commit
            that is no descendant; any other only fast-forwards.

    Raises: RepositoryProblem if the origin cannot be reached or has an URL that is refused.
    """
    url = await origin_url(git, repository)
    if not url:
        return None
    location = _origin_location(url, repository)
    present = await list_refs(git, location.url, _patterns(refs), credentials)
    ours = set(known)
    expected = {ref: present.get(ref, "") for ref in refs if present.get(ref, "") in {"", *ours}}
    wanted = {ref: commit for ref, commit in refs.items() if present.get(ref) != commit}
    results = {ref: PushResult(ref, accepted=True) for ref in refs if ref not in wanted}
    if wanted:
        results |= await put(
            git, repository, location.url, wanted, expected, credentials=credentials
        )
    return results


def _origin_location(url: str, repository: Path) -> Location:
    try:
        return resolve_url(url, repository)
    except RepositoryProblem as problem:
        raise RepositoryProblem(
            RepositoryReason.INVALID_URL, f"origin of {repository}: {problem.message}"
        ) from problem
