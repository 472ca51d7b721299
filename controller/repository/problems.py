"""What can be wrong with a repository, as condition reasons; and git's words turned into them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

MAX_DETAIL = 400


class RepositoryReason(StrEnum):
    """Condition reasons of git's own; others come from what a manifest refers to."""

    NOT_FOUND = "RepositoryNotFound"
    NOT_A_REPOSITORY = "NotARepository"
    BASE_BRANCH_NOT_FOUND = "BaseBranchNotFound"
    UNREADABLE = "RepositoryUnreadable"
    """Nothing is known now; never to be taken for "gone"."""
    INVALID_URL = "InvalidUrl"
    UNSAFE = "UnsafeRepository"
    REFUSED = "PushRefused"
    COMMIT_NOT_FOUND = "CommitNotFound"
    SHALLOW = "ShallowRepository"
    INCOMPLETE = "BundleIncomplete"
    """What came from elsewhere is not the commit that was named, or lacks objects."""


class RepositoryProblem(Exception):
    """A repository cannot be used (now, if ``transient``); the message is fit for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def transient(self) -> bool:
        """Whether it may pass without anybody changing anything here."""
        return self.reason == RepositoryReason.UNREADABLE


_DENIED = (
    "permission denied",
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "host key verification failed",
)


def from_git(url: str, stderr: str) -> RepositoryProblem:
    """The problem behind what git wrote (with ``LC_ALL=C``) when it could not use ``url``."""
    text = stderr.lower()
    if "dubious ownership" in text:
        return RepositoryProblem(
            RepositoryReason.UNSAFE,
            f"{url} belongs to another user, and git refuses it; if you trust it: "
            f"git config --global --add safe.directory {url}",
        )
    if "permission denied" in text and url.startswith("/"):
        return RepositoryProblem(RepositoryReason.UNREADABLE, f"{url}: {detail(stderr)}")
    if any(word in text for word in _DENIED):
        return RepositoryProblem(
            RepositoryReason.UNREADABLE, f"{url} does not let us in: {detail(stderr)}"
        )
    if "does not appear to be a git repository" in text or "not a git repository" in text:
        return RepositoryProblem(
            RepositoryReason.NOT_A_REPOSITORY, f"{url} is not a git repository"
        )
    if "repository not found" in text or ("repository '" in text and "' not found" in text):
        return RepositoryProblem(
            RepositoryReason.NOT_FOUND, f"{url} does not exist, or is not shown to us"
        )
    return RepositoryProblem(
        RepositoryReason.UNREADABLE, f"{url} cannot be read: {detail(stderr) or 'git failed'}"
    )


def check_local(url: str) -> None:
    """Tell a missing path from one that is no repository before git is asked.

    Raises: RepositoryProblem.
    """
    path = Path(url)
    try:
        is_directory = path.is_dir()
        exists = is_directory or path.exists()
    except OSError as error:
        raise RepositoryProblem(
            RepositoryReason.UNREADABLE, f"{url} cannot be read: {error.strerror}"
        ) from error
    if not exists:
        raise RepositoryProblem(RepositoryReason.NOT_FOUND, f"{url} does not exist")
    if not is_directory:
        raise RepositoryProblem(
            RepositoryReason.NOT_A_REPOSITORY, f"{url} is a file, not a git repository"
        )


def detail(stderr: str) -> str:
    """What git said, in one line: its errors if it named any, shortened."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:", "remote:"))]
    return "; ".join(marked or lines[-3:])[:MAX_DETAIL]
