"""An integration's turn: merge the heads one by one, verify; ask the agent only where needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from worker import records
from worker.errors import TurnError
from worker.git import GitError, display, real_path
from worker.project import MAX_TITLE, Merged, ProjectTurn
from worker.records import IntegrationWork, MergeRef
from worker.report import task_result
from worker.runtimes.base import TurnContext

REPAIR_ROUNDS = 2

Ask = Callable[[str], str]
"""Has the agent carry out the integration's prompt with more instructions; its answer."""


class Integration:
    """One attempt to integrate.

    Args:
        turn: the repository's side.
        work: the heads and the verification.
        context: for commands and events.
        ask: the agent.
    """

    def __init__(
        self, turn: ProjectTurn, work: IntegrationWork, context: TurnContext, ask: Ask
    ) -> None:
        self._turn = turn
        self._checkout = turn.checkout
        self._work = work
        self._context = context
        self._ask_agent = ask
        self._merged: list[Merged] = []
        self._answer = ""
        self._verified: list[str] = []

    def run(self) -> str:
        """Integrate and push; the answer.

        Raises: TurnError, Interrupted, OSError.
        """
        base = self._turn.repository["base_commit"]
        self._turn.check_out(self._work["merges"])
        self._context.emit(records.TASK_STARTED, {"base_commit": base})
        for head in self._work["merges"]:
            self._merged.append(self._merge(head))
        self._verify()
        self._context.scope.agent_done()
        changes = self._checkout.changes(base, self._checkout.head)
        self._turn.publish(base, changes, self._merged)
        return self._answer or self._own_answer(base, [display(c.path) for c in changes])

    # --- merging ----------------------------------------------------------------------------

    def _merge(self, head: MergeRef) -> Merged:
        task, commit = head["task"], head["commit"]
        before = self._checkout.head
        began = time.monotonic()
        told = self._started(f"git merge --no-ff {commit}", head)
        conflicts = self._checkout.merge(commit, f"Merge {task}", fast_forward=False)
        if not conflicts:
            state = "already" if self._checkout.head == before else "merged"
            self._completed(told, state, began)
            return Merged(task, commit, state)
        self._completed(told, "conflict", began, _names(conflicts))
        self._resolve(head, conflicts)
        told = self._started(f"git commit -m 'Merge {task}'", head)
        self._completed(told, "resolved", began)
        return Merged(task, commit, "resolved")

    def _started(self, command: str, head: MergeRef) -> dict[str, object]:
        told: dict[str, object] = {
            "item": self._context.item(),
            "command": command,
            "source": "merge",
            "task": head["task"],
            "commit": head["commit"],
        }
        self._context.emit(records.COMMAND_STARTED, told)
        return told

    def _completed(
        self, told: dict[str, object], state: str, began: float, conflicts: str = ""
    ) -> None:
        result = {
            "exit_code": 1 if conflicts else 0,
            "output": f"conflict in {conflicts}" if conflicts else "",
            "seconds": round(time.monotonic() - began, 3),
            "state": state,
        }
        self._context.emit(records.COMMAND_COMPLETED, {**told, **result})

    def _resolve(self, head: MergeRef, conflicts: Sequence[bytes]) -> None:
        """Have the agent resolve the merge that is under way, and commit it."""
        before = {path: self._state(path) for path in conflicts}
        self._ask(
            f"The merge of task {head['task']} ({head['commit'][:12]}) into this checkout "
            f"conflicts in: {_names(conflicts)}.\n"
            "Resolve each of these files so that the intent of both sides is kept, remove all "
            "conflict markers, and leave the result in the work tree. Do not abort the merge."
        )
        open_paths = [path for path in conflicts if self._is_open(path, before[path])]
        if open_paths:
            raise TurnError(
                "task", f"merge conflict in {_names(open_paths)} while merging {head['task']}"
            )
        self._commit(f"Merge {head['task']}")

    def _state(self, path: bytes) -> tuple[bool, object]:
        """Whether a file has markers, and what tells that it was changed."""
        try:
            found = real_path(self._checkout.places.workspace, path).lstat()
        except OSError:
            return False, None
        return self._checkout.has_markers(path), (found.st_ino, found.st_size, found.st_mtime_ns)

    def _is_open(self, path: bytes, before: tuple[bool, object]) -> bool:
        """Whether a conflict is still unresolved.

        One that leaves no markers (deleted here, changed there; binary) counts as resolved when
        the agent changed the file or told its git so.
        """
        now = self._state(path)
        return now[0] or (now == before and path in self._agent_unmerged())

    def _agent_unmerged(self) -> list[bytes]:
        copy = self._checkout.places.git_dir / "agent-index"
        if not self._checkout.agent.copy_index(copy):
            return []
        try:
            return self._checkout.unmerged(copy)
        except GitError as error:
            raise TurnError("task", f"the agent's index cannot be read: {error.message}") from error

    # --- verification -----------------------------------------------------------------------

    def _verify(self) -> None:
        commands = self._work.get("verify")
        if commands is None:
            self._ask(
                "All branches are merged. Find the strongest verification that this repository "
                "offers (its tests, build, linters), run it, repair what fails, and report what "
                "you ran and how it went."
            )
            self._commit("Repair the integration")
            return
        for repairs_left in range(REPAIR_ROUNDS, -1, -1):
            failure = self._run_commands(commands)
            if failure is None:
                return
            if not repairs_left:
                raise TurnError("task", f"verification failed: {failure}")
            self._checkout.restore()
            self._ask(
                f"All branches are merged, but the verification failed: {failure}\n"
                "Repair the cause; all verification commands are run again after that."
            )
            self._commit("Repair the integration")

    def _run_commands(self, commands: Sequence[str]) -> str | None:
        """Run the commands in order; what failed first, in words."""
        self._checkout.show_agent()
        self._verified = []
        for command in commands:
            done = self._context.run_command(command, "verify")
            self._context.scope.sweep()
            self._verified.append(f"{command}: exit code {done.exit_code}")
            if done.exit_code != 0:
                output = done.output.decode("utf-8", "replace").strip()
                tail = f":\n{output[-2000:]}" if output else ""
                return f"`{command}` ended with exit code {done.exit_code}{tail}"
        return None

    # --- the agent --------------------------------------------------------------------------

    def _ask(self, instructions: str) -> None:
        self._checkout.show_agent()
        self._answer = self._ask_agent(instructions)
        self._turn.take_over()

    def _commit(self, message: str) -> None:
        task = self._turn.task
        text = f"{message[:MAX_TITLE]}\n\nCodeswarm-Task: {task['uid']}\n"
        self._checkout.commit(self._turn.start, text)

    def _own_answer(self, base: str, files: Sequence[str]) -> str:
        count = len(self._merged)
        block = task_result(
            task_id=self._turn.task.get("task_id") or self._turn.task["name"],
            branch=self._turn.repository.get("branch", ""),
            base_commit=base,
            head_commit=self._checkout.head,
            files_changed=files,
            verification=self._verified,
        )
        return f"Merged {count} {'head' if count == 1 else 'heads'}.\n\n{block}"


def _names(paths: Sequence[bytes]) -> str:
    return ", ".join(display(path) for path in paths)
