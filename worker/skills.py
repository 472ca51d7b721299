"""A persona's skills in the checkout: there while the agent works, and never in a commit.

They are written before each turn, where agents look for them, and taken away after it, so that
what is committed then cannot hold them.  What the repository has itself goes before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from worker.trees import is_below, remove_tree, write_anew

FOLDERS = (".agents/skills", ".claude/skills")
"""Below the checkout; the second is Claude Code's own."""

_SPECIAL = frozenset("\\*?[]!# ")


class Skills:
    """The skills of one worker's persona.

    Args:
        texts: by path below a skills folder.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = {
            f"{folder}/{path}": text for folder in FOLDERS for path, text in texts.items()
        }

    @property
    def paths(self) -> list[str]:
        """Where they lie, relative to the checkout."""
        return sorted(self._texts)

    @property
    def excluded(self) -> str:
        """Lines of a gitignore(5) that name them."""
        return "".join(f"/{_escaped(path)}\n" for path in self.paths)

    @contextmanager
    def in_place(self, root: Path) -> Iterator[list[str]]:
        """Have them in a checkout, as long as the context lasts.

        Yields: paths that something else of the checkout has, and that were left alone.

        Raises: OSError.
        """
        written: list[Path] = []
        made: list[Path] = []
        taken: list[str] = []
        try:
            for name, text in self._texts.items():
                path = root.joinpath(*PurePosixPath(name).parts)
                if _make_folders(root, path.parent, made) and not os.path.lexists(path):
                    written.append(path)
                    write_anew(path, text)
                elif not _holds(root, path, text):
                    taken.append(name)
            yield sorted(taken)
        finally:
            _take_away(root, written, made)


def _make_folders(root: Path, folder: Path, made: list[Path]) -> bool:
    """Whether a folder is there without a link on the way; what is missing of it is made."""
    for parent in [*reversed(folder.relative_to(root).parents), folder.relative_to(root)]:
        path = root / parent
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            path.mkdir()
            made.append(path)
            continue
        if not stat.S_ISDIR(mode):
            return False
    return True


def _holds(root: Path, path: Path, text: str) -> bool:
    """Whether a file with this text can be found there all the same, maybe by a link."""
    try:
        found = path.resolve(strict=True)
        if root.resolve() not in found.parents or not found.is_file():
            return False
        data = text.encode()
        return found.stat().st_size == len(data) and found.read_bytes() == data
    except (OSError, RuntimeError):  # nothing there, or a loop of links
        return False


def _take_away(root: Path, written: list[Path], made: list[Path]) -> None:
    for path in written:
        if is_below(root, path.parent):
            remove_tree(path)
    for folder in reversed(made):
        try:
            if is_below(root, folder):
                folder.rmdir()
        except OSError:
            continue  # the agent put something there: it is part of its work


def _escaped(path: str) -> str:
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in path)
