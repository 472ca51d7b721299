"""Real repositories with commits in any shape, and what of them is where."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab import git

IDENTITY = "You <you@example.com> 1700000000 +0000"


def bare(path: Path, form: str = "sha1") -> Path:
    """An empty bare repository."""
    git("init", "--quiet", "--bare", "-b", "main", f"--object-format={form}", str(path))
    return path


def grow(repository: Path, parents: Sequence[Sequence[int]], mark: str = "") -> list[str]:
    """Make commits by ``git fast-import``; each names its parents by their number.

    Every commit changes a file of its own and one that all share; refs ``refs/heads/c<number>``.
    """
    stream = []
    for number, above in enumerate(parents):
        stream.append(f"commit refs/heads/c{number}\nmark :{number + 1}\ncommitter {IDENTITY}\n")
        stream.append(_data(f"Commit {number}{mark}"))
        stream += [
            f"{'from' if first else 'merge'} :{parent + 1}\n"
            for first, parent in ((n == 0, parent) for n, parent in enumerate(above))
        ]
        stream.append(f"M 100644 inline own/{number}{mark}\n" + _data(f"{number}{mark}\n"))
        stream.append("M 100644 inline shared\n" + _data(f"last was {number}{mark}\n"))
    subprocess.run(
        ["git", "-C", str(repository), "fast-import", "--quiet", "--force"],
        input="".join(stream).encode(),
        check=True,
        timeout=60,
    )
    return [git("-C", str(repository), "rev-parse", f"c{n}") for n in range(len(parents))]


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


def objects(repository: Path, commit: str) -> set[str]:
    """Names of all objects that a commit reaches; fails if one is not there."""
    listed = git("-C", str(repository), "rev-list", "--objects", commit)
    names = {line.split(" ", 1)[0] for line in listed.splitlines()}
    checked = subprocess.run(
        ["git", "-C", str(repository), "cat-file", "--batch-check"],
        input="".join(f"{name}\n" for name in names),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "missing" not in checked.stdout
    return names


def bundle_of(repository: Path, path: Path, commits: Sequence[str], known: Sequence[str]) -> Path:
    """A bundle with a ref for each commit, as the controller sends one."""
    for commit in commits:
        git("-C", str(repository), "update-ref", f"refs/controller/commits/{commit}", commit)
    wanted = [f"refs/controller/commits/{commit}" for commit in commits]
    git(
        *("-C", str(repository), "bundle", "create", "--quiet", str(path)),
        *(*wanted, *(f"^{commit}" for commit in known)),
    )
    return path
