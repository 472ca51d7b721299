"""Real git repositories for the tests of the controller's git."""

from __future__ import annotations

import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@localhost")


def git(*args: str, cwd: Path) -> str:
    """Run git, and return what it prints."""
    done = subprocess.run(
        ["git", *IDENTITY, *args], cwd=cwd, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def make_bare(path: Path, branch: str = "main") -> Path:
    """An empty bare repository."""
    path.mkdir(parents=True)
    git("init", "--quiet", "--bare", "-b", branch, cwd=path)
    return path


def make_ordinary(path: Path, branch: str = "main") -> Path:
    """An ordinary repository with one commit, its branch checked out."""
    path.mkdir(parents=True)
    git("init", "--quiet", "-b", branch, cwd=path)
    commit(path, "README.md", "hello\n")
    return path


def commit(work: Path, file: str, content: str) -> str:
    """Add a commit to what is checked out; its hash."""
    (work / file).write_text(content)
    git("add", file, cwd=work)
    git("commit", "--quiet", "-m", f"Change {file}", cwd=work)
    return git("rev-parse", "HEAD", cwd=work)


def filled_bare(folder: Path) -> tuple[Path, Path]:
    """A bare repository with one commit on main, and the ordinary one it came from."""
    work = make_ordinary(folder / "work")
    bare = make_bare(folder / "remote.git")
    git("push", "--quiet", str(bare), "main", cwd=work)
    return bare, work
