"""Running git as part of a turn: interruptible, and deaf to whatever an agent may have planted.

The worker's git never reads a checkout's ``.git``: it has a git folder of its own (``GIT_DIR``)
that no sandboxed agent can write, so neither config (filters, fsmonitor, hooks, aliases,
``core.worktree``, ssh commands) nor refs nor attributes of the agent's making count.  The user's
own configuration does: it may hold credentials and ``insteadOf``.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.environ import clean_environ
from worker.errors import TurnError
from worker.scope import Finished, TurnScope

FIXED = {
    "GIT_ALLOW_PROTOCOL": "file:git:ssh:http:https",
    "GIT_EDITOR": ":",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_MERGE_AUTOEDIT": "no",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}

CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tbare = {bare}
\tfilemode = true
\tfsmonitor = false
\thooksPath = /dev/null
\tlogAllRefUpdates = false
\tsplitIndex = false
\tuntrackedCache = false
{extensions}[commit]
\tgpgSign = false
[diff]
\tignoreSubmodules = dirty
[fetch]
\tprune = false
\trecurseSubmodules = false
\twriteCommitGraph = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[merge]
\tautoStash = false
\tconflictStyle = merge
\tstat = false
\tverifySignatures = false
[protocol "ext"]
\tallow = never
[push]
\tfollowTags = false
\tgpgSign = false
\trecurseSubmodules = no
[rerere]
\tenabled = false
[submodule]
\trecurse = false
"""
"""Of the worker's own git folders; it overrides the user's configuration."""


class GitError(TurnError):
    """A git command failed."""

    def __init__(self, command: str, exit_code: int, errors: str) -> None:
        said = last_lines(errors) or f"exit code {exit_code}"
        super().__init__("infrastructure", f"git {command}: {said}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class GitResult:
    """What a git command gave."""

    exit_code: int
    output: bytes
    errors: str


class Git:
    """Git commands of one turn.

    Args:
        scope: the turn.
        git_dir: ``GIT_DIR`` of every command.
        environ: the process environment to begin with.
        extra: further variables (work tree, objects, identity).
    """

    def __init__(
        self,
        scope: TurnScope,
        git_dir: Path,
        environ: Mapping[str, str],
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.scope = scope
        self.git_dir = git_dir
        self._env = {**clean_environ(environ), **FIXED, "GIT_DIR": str(git_dir), **(extra or {})}

    def run(
        self,
        *args: str,
        ok: Sequence[int] = (0,),
        env: Mapping[str, str] | None = None,
    ) -> GitResult:
        """Run ``git <args>``; once more where somebody else has ended it by SIGTERM.

        A batch system sends that to all of a job's processes, also to those that save its work.

        Args:
            args: command and arguments; what comes from outside stands after ``--`` or is a hash.
            ok: exit codes that are no error.
            env: further variables.

        Raises: GitError; Interrupted; TurnError (infrastructure) if there is no git.
        """
        done = self._once(args, env)
        if done.exit_code == -signal.SIGTERM:
            done = self._once(args, env)
        errors = done.errors.decode("utf-8", "replace")
        if done.exit_code not in ok:
            raise GitError(args[0], done.exit_code, errors)
        return GitResult(done.exit_code, done.output, errors)

    def _once(self, args: Sequence[str], env: Mapping[str, str] | None) -> Finished:
        try:
            return self.scope.run(
                [_program(self._env.get("PATH")), *args],
                env={**self._env, **env} if env else self._env,
                cwd=Path("/"),
            )
        except FileNotFoundError:
            raise TurnError("infrastructure", "git is not installed on this node") from None

    def with_dir(self, git_dir: Path) -> Git:
        """The same turn's git in another (bare) git folder."""
        return Git(self.scope, git_dir, self._env, {"GIT_DIR": str(git_dir)})


@functools.lru_cache(maxsize=4)
def _program(path: str | None) -> str:
    """Where git is, so that it is not searched for every time."""
    return shutil.which("git", path=path) or "git"


def config_text(oid: str, *, bare: bool) -> str:
    """The config of a git folder that holds objects with names like ``oid``."""
    sha256 = len(oid) == 64
    return CONFIG.format(
        version=1 if sha256 else 0,
        bare=str(bare).lower(),
        extensions="[extensions]\n\tobjectFormat = sha256\n" if sha256 else "",
    )


def display(path: bytes) -> str:
    """A path from git as text; bytes that are no UTF-8 are written as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def real_path(root: Path, path: bytes) -> Path:
    """A path from git in the file system below ``root``."""
    return root / os.fsdecode(path)


def last_lines(errors: str) -> str:
    """The lines of git's complaint that say most."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return "; ".join((told or lines)[-3:])[:1000]
