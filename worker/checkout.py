"""One worker's checkout: clean at an attempt's start, taken over and committed at its end.

``GIT_DIR`` of all its commands is ``<base>/git``, the work tree ``<base>/<workspaceSubdir>``, and
new objects go to the checkout's own ``.git/objects`` (see git.py for why).  HEAD is detached and
known here, so that no command is needed to ask for it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.agentgit import EXCLUDED, MERGE_FILES, AgentGit, Identity, is_plain
from worker.errors import TurnError
from worker.git import Git, GitError, config_text, display, real_path
from worker.scope import TurnScope
from worker.skills import Skills
from worker.trees import is_below, remove_tree

MAX_MARKER_BYTES = 16 << 20

_MARKERS = re.compile(rb"^<{7}[ \r\n]|^>{7}[ \r\n]", re.MULTILINE)
_GITLINK = b"160000"
_GITLINK_BYTES = (0o160000).to_bytes(4, "big")  # as in an index entry (gitformat-index(5))


@dataclass(frozen=True)
class Places:
    """Where a worker's git works."""

    git_dir: Path
    workspace: Path
    store_objects: Path


@dataclass(frozen=True)
class Change:
    """One changed path, as git tells it."""

    status: str  # A, M, D, T
    mode: bytes
    path: bytes


class Checkout:
    """The checkout during one attempt.

    Args:
        scope: the attempt's turn.
        places: its folders.
        environ: environment for git.
        identity: who commits.
        skills: files of the worker's own that lie in the work tree for a time.
    """

    def __init__(
        self,
        scope: TurnScope,
        places: Places,
        environ: Mapping[str, str],
        identity: Identity,
        skills: Skills | None = None,
    ) -> None:
        self.places = places
        self._identity = identity
        self._skills = skills or Skills({})
        self._excluded = EXCLUDED + self._skills.excluded
        self.agent = AgentGit(places.workspace, places.store_objects, self._excluded)
        people = {"NAME": identity.name, "EMAIL": identity.email}
        self.git = Git(
            scope,
            places.git_dir,
            environ,
            {
                "GIT_WORK_TREE": str(places.workspace),
                "GIT_OBJECT_DIRECTORY": str(self.agent.objects),
                **{f"GIT_AUTHOR_{key}": value for key, value in people.items()},
                **{f"GIT_COMMITTER_{key}": value for key, value in people.items()},
            },
        )
        self.head = ""
        """The commit that HEAD names."""

    # --- the start --------------------------------------------------------------------------

    def start(self, commit: str) -> None:
        """Have exactly this commit in the work tree: nothing changed, nothing left over.

        Raises: TurnError, Interrupted, OSError.
        """
        try:
            self._start(commit)
        except GitError:
            remove_tree(self.places.workspace)  # e.g. folders that git may not enter
            remove_tree(self.places.git_dir)
            self._start(commit)

    def _start(self, commit: str) -> None:
        workspace = self.places.workspace
        fresh = not is_plain(workspace, stat.S_ISDIR)
        if fresh:
            remove_tree(workspace)
            workspace.mkdir(parents=True)
        if not is_plain(self.places.git_dir, stat.S_ISDIR):
            remove_tree(self.places.git_dir)
        self.agent.renew(commit, self._identity)
        self._prepare_git_dir(commit, keep_index=not fresh)
        self._set_head(commit)
        if not fresh:
            self._close_submodules()
            self.git.run("clean", "-ffdxq")
        self.git.run("read-tree", "--reset", "-u", commit)

    def _prepare_git_dir(self, oid: str, *, keep_index: bool) -> None:
        """The private git folder, with at most the index of the last attempt's start."""
        git_dir = self.places.git_dir
        (git_dir / "refs").mkdir(parents=True, exist_ok=True)
        (git_dir / "info").mkdir(exist_ok=True)
        for entry in os.scandir(git_dir):
            if entry.name not in ("refs", "info") and not (entry.name == "index" and keep_index):
                remove_tree(Path(entry.path))
        (git_dir / "config").write_text(config_text(oid, bare=False))
        (git_dir / "info" / "exclude").write_text(self._excluded)

    def _set_head(self, oid: str) -> None:
        (self.places.git_dir / "HEAD").write_text(f"{oid}\n")
        self.head = oid

    def _read_head(self) -> str:
        self.head = (self.places.git_dir / "HEAD").read_text().strip()
        return self.head

    def restore(self) -> None:
        """Undo what commands changed in the work tree; ignored files stay.

        Raises: TurnError, Interrupted.
        """
        self._close_submodules()
        self.git.run("clean", "-ffdq")
        self.git.run("read-tree", "--reset", "-u", self.head)

    # --- merging ----------------------------------------------------------------------------

    def merge(self, commit: str, message: str, *, fast_forward: bool) -> list[bytes]:
        """Merge a commit into HEAD; the conflicting paths, if there are any.

        A merge that conflicts is left in the work tree; see ``conclude_merge``.

        Raises: TurnError, Interrupted.
        """
        ff = "--ff" if fast_forward else "--no-ff"
        args = ("merge", "-q", ff, "--no-edit", "-m", message, commit)
        try:
            self.git.run(*args)
        except GitError as error:
            paths = self.unmerged()
            if not paths:
                raise TurnError("task", f"{message}: {error.message}") from error
            return paths
        self._read_head()
        return []

    def unmerged(self, index: Path | None = None) -> list[bytes]:
        """Paths in conflict, by the worker's own index or another one."""
        env = {"GIT_INDEX_FILE": str(index)} if index else None
        entries = self.git.run("ls-files", "-u", "-z", env=env).output.split(b"\0")
        return sorted({entry.partition(b"\t")[2] for entry in entries if entry})

    def conclude_merge(self, message: str) -> None:
        """Commit the merge that is under way, with the work tree as it is.

        Raises: TurnError, Interrupted.
        """
        self._add_all()
        self._commit(message)

    def _add_all(self) -> None:
        try:
            self.git.run("add", "-A")
        except GitError as error:
            raise TurnError(
                "task", f"the work tree cannot be committed: {error.message}"
            ) from error

    def has_markers(self, path: bytes) -> bool:
        """Whether a file of the work tree has conflict markers."""
        file = real_path(self.places.workspace, path)
        if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_MARKER_BYTES:
            return False
        return _MARKERS.search(file.read_bytes()) is not None

    # --- the end ----------------------------------------------------------------------------

    def unlock(self) -> None:
        """Take away what a git command of ours that was killed has left locked."""
        for name in ("index.lock", "HEAD.lock"):
            (self.places.git_dir / name).unlink(missing_ok=True)

    def show_agent(self) -> None:
        """Let the agent's git see HEAD, index and an unfinished merge."""
        self.agent.show(self.head, self.places.git_dir)

    def take_over(self) -> list[str]:
        """Make the worker's index and HEAD what the agent left, its own commits included.

        Commits that do not descend from where the agent began, or that hold a persona's skills,
        are not followed, but the work tree is taken all the same, so that nothing of the content
        is lost.

        Returns: the skills that the agent had committed.

        Raises: TurnError, Interrupted, OSError.
        """
        self.agent.secure()
        found = self.agent.head()
        skills: list[str] = []
        if found is not None and found != self.head:
            skills = self._follow(found)
        self._close_submodules()
        self._add_all()
        return skills

    def _follow(self, found: str) -> list[str]:
        """Go to the agent's own commit, if it continues ours, is complete, and holds no skills of
        the persona; those that it does."""
        walk = ("rev-list", "--objects", "--quiet", found, "--not", self.head)
        ancestry = ("merge-base", "--is-ancestor", self.head, found)
        if self.git.run(*ancestry, ok=(0, 1, 128)).exit_code != 0:
            return []
        if self.git.run(*walk, ok=(0, 128)).exit_code != 0:
            raise TurnError("task", f"the agent's commit {found[:12]} lacks objects")
        skills = self._skills_since(found)
        if skills:
            return skills
        self._forget_merge_within(found)
        self.git.run("read-tree", "--reset", found)
        self._set_head(found)
        return []

    def _skills_since(self, found: str) -> list[str]:
        """The persona's skills in any commit from HEAD to ``found``, less the repository's own."""
        paths, literal = self._skills.paths, {"GIT_LITERAL_PATHSPECS": "1"}
        if not paths:
            return []
        listed = self.git.run("ls-tree", "-r", "-z", "--name-only", self.head, "--", *paths)
        own = {display(name) for name in listed.output.split(b"\0")}
        ours = [path for path in paths if path not in own]
        if not ours:
            return []
        walk = ("log", "--full-history", "-m", "--format=", "--name-only", "-z", "--no-renames")
        touched = self.git.run(*walk, f"{self.head}..{found}", "--", *ours, env=literal)
        return sorted({display(name).strip() for name in touched.output.split(b"\0")} & set(ours))

    def _forget_merge_within(self, commit: str) -> None:
        """End the merge that is under way, if the agent's commit concluded it."""
        merging = self.places.git_dir / "MERGE_HEAD"
        if not merging.exists():
            return
        merged = ("merge-base", "--is-ancestor", merging.read_text().split()[0], commit)
        if self.git.run(*merged, ok=(0, 1)).exit_code == 0:
            for name in MERGE_FILES:
                remove_tree(self.places.git_dir / name)

    def commit(self, start: str, message: str) -> list[Change]:
        """Commit what differs; all changes since ``start``, committed by whom ever.

        Raises: TurnError (task) for a repository of its own inside the checkout.
        """
        changes = self._changes(("diff-index", "--cached", start))
        self._refuse_embedded(changes)
        merging = (self.places.git_dir / "MERGE_HEAD").exists()
        if merging or self._differs(start, changes):
            self._commit(message)
        return changes

    def _differs(self, start: str, changes: Sequence[Change]) -> bool:
        if self.head == start:
            return bool(changes)
        return self.git.run("diff-index", "--cached", "--quiet", "HEAD", ok=(0, 1)).exit_code == 1

    def _commit(self, message: str) -> None:
        self.git.run("commit", "-q", "--no-verify", "--cleanup=verbatim", "-m", message)
        self._read_head()

    def changes(self, base: str, head: str) -> list[Change]:
        """Changed paths between two commits."""
        return self._changes(("diff-tree", "-r", base, head))

    def _changes(self, command: Sequence[str]) -> list[Change]:
        fields = self.git.run(*command, "--raw", "--no-renames", "-z").output.split(b"\0")
        return [_change(fields[i], fields[i + 1]) for i in range(0, len(fields) - 1, 2)]

    def _close_submodules(self) -> None:
        """Take away the repositories inside submodules.

        ``git add`` would run ``git status`` in them, and that what their config says.
        """
        index = self.places.git_dir / "index"
        if not index.exists() or _GITLINK_BYTES not in index.read_bytes():
            return
        for entry in self.git.run("ls-files", "-s", "-z").output.split(b"\0"):
            mode, _, path = entry.partition(b" ")
            if mode == _GITLINK:
                folder = real_path(self.places.workspace, path.partition(b"\t")[2])
                if is_below(self.places.workspace, folder):
                    remove_tree(folder / ".git")

    def _refuse_embedded(self, changes: Sequence[Change]) -> None:
        listed = (self.places.workspace / ".gitmodules").is_file()
        embedded = [display(c.path) for c in changes if c.mode == _GITLINK and c.status == "A"]
        if embedded and not listed:
            raise TurnError(
                "task",
                f"{', '.join(embedded[:5])} is a git repository of its own inside the checkout: "
                "its files would be lost; remove its .git, or make it a submodule",
            )


def _change(head: bytes, path: bytes) -> Change:
    """A ``--raw -z`` entry: ``:<old mode> <mode> <old oid> <oid> <status>`` (git-diff-tree(1))."""
    _, mode, _, _, status = head.split(b" ")
    return Change(status.decode()[:1], mode, path)
