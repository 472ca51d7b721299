"""Repository URLs: which ones are taken, and where a relative or local one points."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from controller.repository.problems import RepositoryProblem, RepositoryReason

SCHEMES = ("https", "http", "ssh", "file")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::")
_SCP = re.compile(r"(?:[^/@\s]+@)?(?:\[[^\]/]+\]|[^/:\s]+):(?!//)(.*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|^\.|\.lock(?=/|$)|[/.]$|^/|^-")


@dataclass(frozen=True, slots=True)
class Location:
    """A repository's address as git takes it."""

    url: str
    """An absolute path for a local repository."""
    local: bool


def resolve_url(url: str, base_dir: Path | None = None) -> Location:
    """The repository that a manifest's ``repository.url`` names.

    Args:
        url: a path (``~`` too), ``file://``, ``https://``, ``ssh://`` or ``user@host:path``.
        base_dir: the manifest's folder, for a relative path; None where there is none.

    Raises: RepositoryProblem (``InvalidUrl``).
    """
    if not url or _CONTROL.search(url):
        raise _invalid(url, "is empty or contains control characters")
    if url.startswith("-"):
        raise _invalid(url, "must not begin with '-'")
    if _HELPER.match(url):
        raise _invalid(url, "names a git remote helper; use a path, file://, https:// or ssh")
    scheme = _SCHEME.match(url)
    if scheme:
        return _with_scheme(url, scheme.group(1).lower())
    scp = _SCP.fullmatch(url)
    if scp:
        host = url[: scp.start(1) - 1]
        if host.rpartition("@")[2].startswith("-") or scp.group(1).startswith("-"):
            raise _invalid(url, "has a host or path that begins with '-'")
        if not scp.group(1):
            raise _invalid(url, "names a host but no path")
        return Location(url, local=False)
    return Location(_absolute(url, base_dir), local=True)


def locate(url: str) -> Location:
    """A URL that ``resolve_url`` gave before (no relative paths).

    Raises: RepositoryProblem (``InvalidUrl``).
    """
    return resolve_url(url, None)


def is_relative(url: str) -> bool:
    """Whether a manifest's ``repository.url`` is a path that starts from the manifest's folder."""
    plain = not (_SCHEME.match(url) or _HELPER.match(url) or _SCP.fullmatch(url))
    return plain and not url.startswith(("/", "~", "-"))


def _with_scheme(url: str, scheme: str) -> Location:
    if scheme not in SCHEMES:
        raise _invalid(url, f"uses {scheme}://; use a path, file://, https:// or ssh")
    try:
        parts = urlsplit(url)
        host, password, _ = parts.hostname or "", parts.password, parts.port
    except ValueError as error:
        raise _invalid(url, f"cannot be read: {error}") from None
    if scheme == "file":
        if host not in ("", "localhost"):
            raise _invalid(url, "names a host; file:// is for this machine: file:///path")
        return Location(_absolute(unquote(url[len("file://" + parts.netloc) :]), None), local=True)
    if password is not None or (scheme != "ssh" and parts.username is not None):
        raise RepositoryProblem(
            RepositoryReason.INVALID_URL,
            f"the URL of {host or 'the repository'} contains credentials; "
            "use repository.credentials",
        )
    if not host or host.startswith("-") or (parts.username or "").startswith("-"):
        raise _invalid(url, "has no valid host")
    if not parts.path.strip("/"):
        raise _invalid(url, "names a host but no path")
    return Location(url, local=False)


def _absolute(path: str, base_dir: Path | None) -> str:
    if "\0" in path or _CONTROL.search(path):
        raise _invalid(path, "contains control characters")
    if path.startswith("~"):
        expanded = os.path.expanduser(path)  # noqa: PTH111 (Path.expanduser raises for ~nobody)
        if expanded.startswith("~"):
            raise _invalid(path, "names a user that does not exist")
        path = expanded
    if not os.path.isabs(path):  # noqa: PTH117
        if base_dir is None:
            raise _invalid(path, "is a relative path, and there is no folder that it starts from")
        path = str(base_dir.absolute() / path)
    return os.path.normpath(path)


def _invalid(url: str, what: str) -> RepositoryProblem:
    return RepositoryProblem(RepositoryReason.INVALID_URL, f"repository url {url!r} {what}")


def is_branch_name(name: str) -> bool:
    """Whether git takes ``name`` as a branch (git-check-ref-format(1)), and it is no option."""
    return bool(name) and name not in ("@", "HEAD") and not _BAD_IN_REF.search(name)


def is_ref_name(ref: str) -> bool:
    """Whether ``ref`` is a full, valid ref name (``refs/heads/main``)."""
    return ref.startswith("refs/") and not _BAD_IN_REF.search(ref)
