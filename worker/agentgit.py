"""The checkout's own ``.git``: made anew for the agent, and read back with distrust.

The agent may do anything with it: replace it by a link, plant config, hooks, alternates.  The
worker takes three things from it, each checked: which commit ``HEAD`` names, the objects, and
whether merged paths are still in conflict.  Everything else is thrown away with the attempt.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.errors import TurnError
from worker.git import config_text
from worker.trees import remove_tree, write_anew

EXCLUDED = """\
# What running things leaves behind; not committed by the worker either.
__pycache__/
*.py[cod]
.hypothesis/
.mypy_cache/
.pytest_cache/
.ruff_cache/
.DS_Store
"""

_FOLDERS = ("", "/objects", "/objects/info", "/refs", "/refs/heads", "/info")

MERGE_FILES = ("MERGE_HEAD", "MERGE_MSG", "MERGE_MODE")

_MAX_BYTES = 16 << 20
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_BRANCH = re.compile(r"refs/heads/[A-Za-z0-9._@+-]+(?:/[A-Za-z0-9._@+-]+)*\Z")


@dataclass(frozen=True)
class Identity:
    """Who commits."""

    name: str
    email: str


class AgentGit:
    """The agent's view of the repository.

    Args:
        workspace: the checkout.
        alternates: the shared store's object folder.
        excluded: lines of a gitignore(5).
    """

    def __init__(self, workspace: Path, alternates: Path, excluded: str = EXCLUDED) -> None:
        self._excluded = excluded
        self.path = workspace / ".git"
        self._alternates = alternates

    @property
    def objects(self) -> Path:
        """Where new objects are written, the worker's too."""
        return self.path / "objects"

    def renew(self, oid: str, identity: Identity) -> None:
        """Replace all of it by a new one, without objects, detached at ``oid``.

        Raises: OSError.
        """
        remove_tree(self.path)
        for folder in _FOLDERS:
            Path(f"{self.path}{folder}").mkdir()
        user = f"[user]\n\tname = {_quoted(identity.name)}\n\temail = {_quoted(identity.email)}\n"
        write_anew(self.path / "config", config_text(oid, bare=False) + user)
        write_anew(self.path / "info" / "exclude", self._excluded)
        self._link_objects()
        self._set_head(oid)

    def show(self, oid: str, git_dir: Path) -> None:
        """Let the agent see where the worker is: its HEAD, index and unfinished merge.

        Raises: OSError.
        """
        self._set_head(oid)
        for name in ("index", *MERGE_FILES):
            target = self.path / name
            remove_tree(target)
            if (git_dir / name).exists():
                shutil.copyfile(git_dir / name, target)

    def secure(self) -> None:
        """Make its objects safe to use again after the agent.

        Raises: TurnError (task) if ``.git`` or its objects are no plain folders any more.
        """
        for folder in (self.path, self.objects):
            if not is_plain(folder, stat.S_ISDIR):
                raise TurnError(
                    "task", "the agent removed or replaced the checkout's .git: nothing is kept"
                )
        info = self.objects / "info"
        if not is_plain(info, stat.S_ISDIR):
            remove_tree(info)
            info.mkdir()
        self._link_objects()

    def head(self) -> str | None:
        """The commit that HEAD names, if it can be told."""
        text = self._read("HEAD")
        if text.startswith("ref: "):
            text = self._branch(text[5:].strip())
        return text.strip() if _OID.match(text.strip()) else None

    def copy_index(self, target: Path) -> bool:
        """Copy the agent's index; False if there is none."""
        index = self.path / "index"
        if not is_plain(index, stat.S_ISREG):
            return False
        shutil.copyfile(index, target, follow_symlinks=False)
        return True

    def _branch(self, ref: str) -> str:
        if not _BRANCH.match(ref) or ".." in ref:
            return ""
        loose = self._read(ref)
        if loose:
            return loose
        for line in self._read("packed-refs").splitlines():
            oid, _, name = line.partition(" ")
            if name == ref:
                return oid
        return ""

    def _read(self, name: str) -> str:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            handle = os.open(self.path / name, flags)
        except OSError:
            return ""
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return ""
            return file.read(_MAX_BYTES).decode("utf-8", "replace")

    def _link_objects(self) -> None:
        write_anew(self.objects / "info" / "alternates", f"{self._alternates}\n")
        remove_tree(self.objects / "info" / "http-alternates")

    def _set_head(self, oid: str) -> None:
        write_anew(self.path / "HEAD", f"{oid}\n")


def is_plain(path: Path, test: Callable[[int], bool]) -> bool:
    """Whether a path itself, no link followed, is of a kind (``stat.S_ISDIR``, ...)."""
    try:
        return test(path.lstat().st_mode)
    except OSError:
        return False


def _quoted(text: str) -> str:
    """A value in git's config syntax (git-config(1))."""
    cleaned = " ".join(text.split())
    return '"' + cleaned.replace("\\", "\\\\").replace('"', '\\"') + '"'
