"""A project's turn: check out, let the agent work, commit, push, and say what git says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import credentials, records
from worker.agentgit import Identity
from worker.checkout import Change, Checkout, Places
from worker.config import Config
from worker.errors import TurnError
from worker.git import Git, display
from worker.objectstore import ObjectStore, Remote
from worker.publish import push
from worker.records import DependencyRef, MergeRef, RepositoryRef, UserRecord
from worker.runtimes.base import Emit
from worker.scope import TurnScope
from worker.skills import Skills

MAX_FILES = 200
MAX_TITLE = 200

IdentityOf = Callable[[TurnScope], Identity]


@dataclass(frozen=True)
class Merged:
    """One head that is in the result, and how it came there."""

    task: str
    commit: str
    state: str  # merged | resolved | already


class ProjectTurn:
    """The repository's side of one attempt.

    Args:
        config: the worker's.
        record: what started the turn; it names a repository.
        scope: the turn.
        emit: adds an event.
        environ: environment for git.
        identity: who commits.
    """

    def __init__(
        self,
        config: Config,
        *,
        record: UserRecord,
        scope: TurnScope,
        emit: Emit,
        environ: Mapping[str, str],
        identity: Identity,
    ) -> None:
        self.repository: RepositoryRef = record["repository"]
        self.task = record["task"]
        self._config = config
        self._emit = emit
        self._credentials = credentials.take(config.base, record.get("secrets"))
        git = Git(scope, config.base / "git", environ)
        self._store = ObjectStore(self._store_path(), git)
        places = Places(config.base / "git", config.workspace, self._store.objects)
        skills = Skills(config.persona.skills)
        self.checkout = Checkout(scope, places, environ, identity, skills)
        self.start = ""
        """The commit that the agent begins with."""

    def _store_path(self) -> Path:
        named = self.repository.get("store")
        return (
            Path(named) if named else self._config.stores / f"{self.repository['project_uid']}.git"
        )

    def _remote(self) -> AbstractContextManager[Remote]:
        return credentials.remote(self._config.base, self.repository["url"], self._credentials)

    def check_out(self, heads: Sequence[DependencyRef] | Sequence[MergeRef]) -> None:
        """Have the base commit in a clean work tree, and these heads at hand.

        Raises: TurnError, Interrupted, OSError.
        """
        previous = self.repository.get("previous")
        with self._remote() as remote:
            self._store.provide(self.repository, heads, remote)
            if previous is not None:
                self._store.offer(previous, remote)
        self.checkout.start(self.repository["base_commit"])
        self.start = self.checkout.head

    def check_out_with_dependencies(self) -> list[bytes]:
        """Have the base with the finished dependencies merged in; the paths that conflict.

        A conflicting merge is committed with its markers in the files, so that the next ones can
        follow and the agent's own git is in a plain state.

        Raises: TurnError, Interrupted, OSError.
        """
        heads = self.repository["dependencies"]
        self.check_out(heads)
        conflicts: set[bytes] = set()
        for head in heads:
            message = f"Merge {head['task']}"
            found = self.checkout.merge(head["commit"], message, fast_forward=True)
            if found:
                self.checkout.conclude_merge(f"{message}, with conflicts")
            conflicts.update(found)
        self.start = self.checkout.head
        self.checkout.show_agent()
        return sorted(conflicts)

    def deliver(self, conflicts: Sequence[bytes]) -> None:
        """Commit what the agent left, push it, and report it.

        Args:
            conflicts: what the agent had to resolve.

        Raises: TurnError, Interrupted, OSError.
        """
        self.take_over()
        left = [display(path) for path in conflicts if self.checkout.has_markers(path)]
        if left:
            raise TurnError("task", f"conflict markers are left in {', '.join(left)}")
        changes = self.checkout.commit(self.start, commit_message(self.task))
        self.publish(self.repository["base_commit"], changes)

    def keep(self) -> str:
        """Commit what an interrupted agent left, push it to the attempt's own ref alone, and report
        it; what to say of it.

        Raises: TurnError, Interrupted, OSError.
        """
        if not self.start or "attempt_ref" not in self.repository:
            return ""
        self.checkout.unlock()
        self.take_over()
        changes = self.checkout.commit(self.start, commit_message(self.task, unfinished=True))
        if self.checkout.head == self.start:
            return "; it had changed nothing"
        self.publish(self.repository["base_commit"], changes, finished=False)
        return f"; its work so far is {self.checkout.head[:12]}"

    def take_over(self) -> None:
        """Take over what the agent left; skills of its persona that it committed are told.

        Raises: TurnError, Interrupted, OSError.
        """
        skills = self.checkout.take_over()
        if skills:
            message = (
                "the agent's own commits hold files of its persona and are replaced by one of the "
                f"worker's without them: {', '.join(skills[:10])}"
            )
            told = {"class": "persona", "message": message, "will_retry": False}
            self._emit(records.AGENT_ERROR, told)

    def publish(
        self,
        base: str,
        changes: Sequence[Change],
        merges: Sequence[Merged] = (),
        *,
        finished: bool = True,
    ) -> None:
        """Push the head and report it.

        Args:
            base: the commit to name as base.
            changes: what to report as changed files.
            merges: what was integrated.
            finished: whether the task's branch moves too, not only the attempt's own ref.

        Raises: TurnError, Interrupted.
        """
        head, repository = self.checkout.head, self.repository.copy()
        if not finished:
            repository.pop("branch", None)
        told: dict[str, Any] = {
            "base_commit": base,
            "head_commit": head,
            "attempt_ref": repository.get("attempt_ref"),
            "branch": repository.get("branch"),
            "files_changed": [display(change.path) for change in changes[:MAX_FILES]],
            "files_changed_count": len(changes),
            "merges": [vars(merge) for merge in merges] if merges else None,
        }
        try:
            with self._remote() as remote:
                hide = finished and not merges
                told["pushed"] = push(self.checkout.git, repository, head, remote, hide=hide)
        except TurnError as error:
            if error.kind == "branch_conflict":  # the attempt's own ref has the work
                self._report({**told, "pushed": True, "branch": None})
            raise
        self._report(told)

    def _report(self, told: Mapping[str, Any]) -> None:
        self._emit(records.TASK_COMPLETE, {k: v for k, v in told.items() if v is not None})


def commit_message(task: records.TaskRef, *, unfinished: bool = False) -> str:
    """The message of what the worker commits for an agent."""
    title = " ".join((task.get("title") or task["name"]).split())[:MAX_TITLE]
    if unfinished:
        title += " (unfinished)"
    return f"{title}\n\nCodeswarm-Task: {task['uid']}\n"


def find_identity(scope: TurnScope, config: Config, environ: Mapping[str, str]) -> Identity:
    """Who commits: as the user's git configuration says, else the worker itself.

    Raises: TurnError, Interrupted.
    """
    git = Git(scope, Path("/nowhere"), environ)  # no repository: only the user's and the system's
    asked = ("config", "--get-regexp", r"^user\.(name|email)$")
    found = dict(
        line.partition(" ")[::2]
        for line in git.run(*asked, ok=(0, 1)).output.decode("utf-8", "replace").splitlines()
    )
    return Identity(
        name=found.get("user.name") or f"Codeswarm {config.job}",
        email=found.get("user.email") or f"{config.job}@codeswarm.invalid",
    )
