"""Looking at a remote: one ``git ls-remote`` tells its base branch and all refs of ours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.domain.graph import did_you_mean
from controller.repository.credentials import Credentials
from controller.repository.git import Git, ceiling, inside
from controller.repository.problems import (
    RepositoryProblem,
    RepositoryReason,
    check_local,
    detail,
    from_git,
)
from controller.repository.urls import Location, is_branch_name, locate

FALLBACK_BRANCH = "main"
EMPTY_MESSAGE = "Begin"
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Codeswarm",
    "GIT_AUTHOR_EMAIL": "codeswarm@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "Codeswarm",
    "GIT_COMMITTER_EMAIL": "codeswarm@localhost",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
"""Always the same, so that two who make the first commit at once make the same one."""


@dataclass(frozen=True, slots=True)
class RemoteState:
    """A remote, at one moment."""

    url: str
    default_branch: str
    """Without ``refs/heads/``."""
    base_branch: str
    """The branch asked for, else the default one."""
    base_commit: str | None
    """None: the repository has no commit at all."""
    refs: Mapping[str, str]
    """Full ref name to commit: the base branch, the project's branches, ``refs/codeswarm/``."""

    @property
    def empty(self) -> bool:
        """Whether the repository has no commit at all."""
        return self.base_commit is None


@dataclass(frozen=True, slots=True)
class _Listing:
    head_target: str
    """What HEAD points to (``refs/heads/main``); empty if detached or absent."""
    refs: dict[str, str]


async def inspect(
    git: Git,
    url: str,
    base_branch: str | None,
    project: str,
    credentials: Credentials | None = None,
) -> RemoteState:
    """What a remote holds, as far as a project is concerned.

    Args:
        url: as ``urls.resolve_url`` gave it.
        base_branch: the branch that work starts from; None for the repository's own default.
        project: name of the project whose branches ``codeswarm/<project>/`` are listed.

    Raises: RepositoryProblem.
    """
    if base_branch is not None and not is_branch_name(base_branch):
        raise RepositoryProblem(
            RepositoryReason.BASE_BRANCH_NOT_FOUND, f"{base_branch!r} cannot be a branch's name"
        )
    location = locate(url)
    patterns = ["HEAD", f"refs/heads/codeswarm/{project}/*", "refs/codeswarm/*"]
    if base_branch is not None:
        patterns.append(f"refs/heads/{base_branch}")
    listing = await _list(git, location, patterns, credentials)
    default = listing.head_target.removeprefix("refs/heads/")
    base = base_branch or default
    refs = {ref: sha for ref, sha in listing.refs.items() if ref != "HEAD"}
    if base and f"refs/heads/{base}" not in refs and base == default and "HEAD" in listing.refs:
        refs[f"refs/heads/{base}"] = listing.refs["HEAD"]
    commit = refs.get(f"refs/heads/{base}") if base else None
    if commit is None:
        return await _without_base(git, location, base_branch, default, credentials)
    return RemoteState(url, default or base, base, commit, refs)


async def _without_base(
    git: Git,
    location: Location,
    base_branch: str | None,
    default: str,
    credentials: Credentials | None,
) -> RemoteState:
    """Tell an empty repository from one that lacks the branch (needs a second look)."""
    listing = await _list(git, location, [], credentials)
    if not listing.refs:
        unborn = await _unborn_branch(git, location) or FALLBACK_BRANCH
        return RemoteState(location.url, unborn, base_branch or unborn, None, {})
    prefix = "refs/heads/"
    branches = [ref.removeprefix(prefix) for ref in listing.refs if ref.startswith(prefix)]
    mine = [branch for branch in branches if not branch.startswith("codeswarm/")]
    if base_branch is None:
        state = "points to a branch without commits" if default else "points to no branch"
        message = f"HEAD of {location.url} {state}; set repository.baseBranch"
    else:
        message = f"{location.url} has no branch {base_branch!r}{did_you_mean(base_branch, mine)}"
    if mine:
        more = f" and {len(mine) - 10} more" if len(mine) > 10 else ""
        message += f" (it has {', '.join(mine[:10])}{more})"
    raise RepositoryProblem(RepositoryReason.BASE_BRANCH_NOT_FOUND, message)


async def _unborn_branch(git: Git, location: Location) -> str:
    """The branch that HEAD of an empty repository names, where that can be seen."""
    if not location.local:
        return ""
    home = Path(location.url)
    result = await git.run(
        *inside(home), "symbolic-ref", "--quiet", "HEAD", variables=ceiling(home)
    )
    return result.out.strip().removeprefix("refs/heads/") if result.code == 0 else ""


async def list_refs(
    git: Git, url: str, patterns: list[str], credentials: Credentials | None = None
) -> dict[str, str]:
    """Refs of a remote that match glob patterns (all, if there are none).

    Raises: RepositoryProblem.
    """
    return (await _list(git, locate(url), patterns, credentials)).refs


async def _list(
    git: Git, location: Location, patterns: list[str], credentials: Credentials | None
) -> _Listing:
    if location.local:
        check_local(location.url)
    result = await git.run(
        "ls-remote", "--symref", "--", location.url, *patterns, credentials=credentials
    )
    if result.code != 0:
        raise from_git(location.url, result.err)
    head_target = ""
    refs: dict[str, str] = {}
    for line in result.out.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            if name == "HEAD":
                head_target = value.removeprefix("ref: ")
        elif (name == "HEAD" or name.startswith("refs/")) and not name.endswith("^{}"):
            refs[name] = value
    # Git matches patterns against the end of a name too: refs/old/refs/heads/main.
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    if patterns:
        refs = {n: v for n, v in refs.items() if n in exact or n.startswith(prefixes)}
    return _Listing(head_target, refs)


def read_loose_ref(url: str, ref: str) -> str:
    """A ref of a local repository straight from its file; empty if it is not there to be read.

    Only a quick look (https://git-scm.com/docs/gitrepository-layout): an empty answer means
    nothing, since refs may be packed or kept in another format.
    """
    location = locate(url)
    if not location.local or not ref.startswith("refs/") or ".." in ref:
        return ""
    for folder in (Path(location.url), Path(location.url) / ".git"):
        if (folder / "reftable").exists() or not (folder / "HEAD").is_file():
            continue
        with suppress(OSError, UnicodeDecodeError):
            value = (folder / ref).read_text("ascii").strip()
            if len(value) in (40, 64) and set(value) <= _HEX:
                return value
    return ""


_HEX = frozenset("0123456789abcdef")


async def ensure_base(
    git: Git, url: str, branch: str, store: Path, credentials: Credentials | None = None
) -> str:
    """Give a repository without any commit its first, empty one; the branch's commit.

    Two who do this at once make the same commit, and the branch is only ever created.

    Args:
        store: an object store (see ``objects``), from which a remote is pushed to.

    Raises: RepositoryProblem.
    """
    if not is_branch_name(branch):
        raise RepositoryProblem(
            RepositoryReason.BASE_BRANCH_NOT_FOUND, f"{branch!r} cannot be a branch's name"
        )
    location = locate(url)
    ref = f"refs/heads/{branch}"
    # A push would be refused where the unborn branch is checked out, so that a local repository
    # is written to directly.
    home = Path(location.url) if location.local else store
    if location.local:
        check_local(location.url)
    commit = await _empty_commit(git, home)
    if location.local:
        made = await git.run(*inside(home), "update-ref", ref, commit, "", variables=ceiling(home))
    else:
        made = await git.run(
            *(*inside(home), "push", "--no-verify", f"--force-with-lease={ref}:"),
            *("--", location.url, f"{commit}:{ref}"),
            credentials=credentials,
        )
    present = (await list_refs(git, url, [ref], credentials)).get(ref)
    if present is None:
        raise RepositoryProblem(
            RepositoryReason.REFUSED,
            f"{url} takes no first commit on {branch!r}: {detail(made.err) or 'git failed'}",
        )
    return present


async def _empty_commit(git: Git, home: Path) -> str:
    tree = await git.run(
        *inside(home), *("hash-object", "-t", "tree", "-w", "/dev/null"), variables=ceiling(home)
    )
    if tree.code != 0:
        raise from_git(str(home), tree.err)
    made = await git.run(
        *inside(home),
        *("commit-tree", "--no-gpg-sign", "-m", EMPTY_MESSAGE, tree.out.strip()),
        variables={**_IDENTITY, **ceiling(home)},
    )
    if made.code != 0:
        raise from_git(str(home), made.err)
    return made.out.strip()
