"""Walking and removing folders that untrusted programs filled.

No symlink is followed at any level and no depth is too deep: one descriptor is moved down and
up (as fts(3) does), so neither the length of a path nor the number of open files limits it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVE_ATTEMPTS = 3


@dataclass(frozen=True)
class Node:
    """One entry met on a walk."""

    path: str
    """Relative to where the walk began, with ``/`` between."""
    name: str
    parent: int
    """Descriptor of the folder that holds it; valid until the next step of the walk."""
    stat: os.stat_result
    """As lstat(2) gives it."""
    leaving: bool = False
    """A folder is met twice: before its content and, with this set, after."""

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder (a symlink to one is not)."""
        return stat.S_ISDIR(self.stat.st_mode)


@dataclass
class _Level:
    node: Node | None
    identity: tuple[int, int]
    names: Iterator[str]


def walk(top: int, *, skip: Callable[[str], bool] = lambda path: False) -> Iterator[Node]:
    """Everything below a folder, depth first, by name.

    A folder that its owner may not enter is opened up first (mode ``u+rwx``).

    Args:
        top: descriptor of the folder; stays open.
        skip: tells by path (as in ``Node.path``) what is not to be visited at all.

    Raises: OSError; ESTALE if a folder is moved away while its content is visited.
    """
    current = os.dup(top)
    levels = [_level(current, None)]
    try:
        while True:
            name = next(levels[-1].names, None)
            if name is None:
                done = levels.pop().node
                if done is None:
                    return
                current = _up(current, levels[-1].identity)
                yield Node(done.path, done.name, current, done.stat, leaving=True)
                continue
            above = levels[-1].node
            path = name if above is None else f"{above.path}/{name}"
            if skip(path):
                continue
            try:
                node = Node(path, name, current, _lstat(name, current))
            except FileNotFoundError:
                continue
            yield node
            if node.is_dir:
                current = _down(current, node)
                levels.append(_level(current, node))
    finally:
        os.close(current)


def remove(parent: int, name: str) -> None:
    """Remove a folder with all in it; one that is not there is no error.

    Args:
        parent: descriptor of the folder that holds it.
        name: one component.

    Raises: OSError.
    """
    for attempt in range(1, _REMOVE_ATTEMPTS + 1):
        try:
            _remove(parent, name)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # Something is still being written there: once more, but not for ever.
            retriable = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ESTALE)
            if not retriable or attempt == _REMOVE_ATTEMPTS:
                raise


def _remove(parent: int, name: str) -> None:
    node = Node(name, name, parent, _lstat(name, parent))
    if not node.is_dir:
        os.unlink(name, dir_fd=parent)
        return
    folder = _open_dir(parent, node)
    try:
        for below in walk(folder):
            _remove_one(below)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)


def _remove_one(node: Node) -> None:
    try:
        if node.leaving:
            os.rmdir(node.name, dir_fd=node.parent)
        elif not node.is_dir:
            os.unlink(node.name, dir_fd=node.parent)
    except FileNotFoundError:
        return


def _lstat(name: str, parent: int) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)


def _open_dir(parent: int, node: Node) -> int:
    if node.stat.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(node.name, stat.S_IMODE(node.stat.st_mode) | stat.S_IRWXU, dir_fd=parent)
    return os.open(node.name, _OPEN_DIR, dir_fd=parent)


def _down(current: int, node: Node) -> int:
    following = _open_dir(current, node)
    os.close(current)
    return following


def _up(current: int, expected: tuple[int, int]) -> int:
    above = os.open("..", _OPEN_DIR, dir_fd=current)
    if _identity(above) != expected:
        os.close(above)
        raise OSError(errno.ESTALE, "a folder was moved while its content was visited")
    os.close(current)
    return above


def _level(descriptor: int, node: Node | None) -> _Level:
    return _Level(node, _identity(descriptor), iter(sorted(os.listdir(descriptor))))


def _identity(descriptor: int) -> tuple[int, int]:
    seen = os.fstat(descriptor)
    return seen.st_dev, seen.st_ino
