"""Settling an attempt: what its end means, whether its work is durable, what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.domain.outcome import (
    OVERLOADED,
    TIME_LIMIT,
    Outcome,
    Verdict,
    has_progressed,
    interruption_class,
    is_excused,
    left_before,
    lost,
    settle,
)
from controller.domain.paths import outside
from controller.domain.results import TaskResult
from controller.domain.retry import (
    FailureClass,
    Failures,
    GiveUp,
    Retry,
    RetryLimits,
    count,
    decide,
    go_on,
)
from controller.reconcile.carriages import NotYet
from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.confirm import confirmed
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.homeward import brought_home
from controller.reconcile.infos import TaskInfo, project_key, wanted_retry
from controller.reconcile.plan import PlanStore
from controller.reconcile.pricing import merge_usage
from controller.reconcile.refusals import Refusals
from controller.reconcile.routes import Router
from controller.reconcile.sizes import first_bytes, fitting, last_bytes
from controller.reconcile.task_status import OF_A_RESULT, task_conditions
from controller.reconcile.turns import TurnFacts
from controller.repository.problems import RepositoryProblem
from controller.resources.names import task_branch
from controller.store.base import Resource
from providers.base import ProviderError

TOO_LONG = (
    "its turns do not end in the time that its workers have: give them more (timeLimit), split the "
    "task, or allow more of these in a row (limits.infrastructureRetries)"
)
ANSWER_BYTES = 8192
REPORT_BYTES = 2048
FILES_BYTES = 4096
WARNINGS_BYTES = 1536
CONFIRM_SECONDS = 2.0
"""Between two looks at a remote that could not be read."""
BRINGING_SECONDS = 11.0
"""Between two looks at work that is being brought home; its arrival wakes the task."""


def _result(result: TaskResult) -> dict[str, Any]:
    return {"status": str(result.status), "notes": first_bytes(result.notes, REPORT_BYTES)}


class Settler:
    """Closes attempts; every close is one status write."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._plans = PlanStore(ctx)
        self._router = Router(ctx)
        self._refusals = Refusals(ctx)

    async def settle(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts
    ) -> float | None:
        """Close an attempt whose turn is complete."""
        outcome = self._outcome(obj, info, attempt, turn)
        try:
            outcome = await brought_home(self._ctx, info, attempt, turn, outcome)
            outcome = await confirmed(self._ctx, obj, info, attempt, outcome)
        except NotYet as state:
            return await self._unknown(obj, "BringingHome", state.message, BRINGING_SECONDS)
        except (RepositoryProblem, ProviderError) as problem:
            if not self._given_up(info):
                return await self._unknown(obj, problem.reason, str(problem), CONFIRM_SECONDS)
            outcome = Outcome(
                Verdict.FAILURE, "Cancelled", "it was given up before its end could be confirmed",
                FailureClass.CANCELLED,
            )  # fmt: skip
        if outcome.verdict is Verdict.SUCCESS and info.kind == "plan" and outcome.plan:
            await self._plans.store(info, outcome.plan)
        return await self._close(obj, info, attempt, turn, outcome)

    async def lost(
        self,
        obj: Resource,
        info: TaskInfo,
        attempt: dict[str, Any],
        turn: TurnFacts | None,
        leaving: str = "",
    ) -> float | None:
        """Close an attempt whose worker is gone without having finished it.

        Args:
            leaving: why the worker had to leave, if it said so.
        """
        interrupt = (attempt.get("interrupt") or {}).get("reason", "")
        where = f"{attempt['swarm']}/{attempt['worker']}"
        if interrupt:
            message = f"the turn was ended by force ({interrupt})"
            outcome = Outcome(Verdict.FAILURE, interrupt, message, interruption_class(interrupt))
        elif leaving and (turn is None or turn.accepted_at is None):
            outcome = left_before(where, leaving)
        else:
            outcome = lost("WorkerLost", f"worker {where} ({attempt['job']}) went away")
        if turn is None:
            return await self._close(obj, info, attempt, turn, outcome)
        try:
            outcome = await brought_home(self._ctx, info, attempt, turn, outcome)
        except NotYet as state:
            return await self._unknown(obj, "BringingHome", state.message, BRINGING_SECONDS)
        except (RepositoryProblem, ProviderError) as problem:
            if not self._given_up(info):
                return await self._unknown(obj, problem.reason, str(problem), CONFIRM_SECONDS)
        return await self._close(obj, info, attempt, turn, outcome)

    async def undelivered(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], why: Exception
    ) -> float | None:
        """Close an attempt that cannot be delivered: its worker is free for others."""
        outcome = Outcome(Verdict.FAILURE, "NotDelivered", str(why), FailureClass.SUPERSEDED)
        if isinstance(why, RepositoryProblem):  # it could not be sent to where the worker is
            outcome = lost(why.reason, why.message)
        return await self._close(obj, info, attempt, None, outcome)

    def _given_up(self, info: TaskInfo) -> bool:
        project = self._ctx.world.projects.get(project_key(info))
        gone = project is None or project.deleting
        return gone or info.cancel or info.deleting or info.attempt_revision != info.revision

    async def _unknown(self, obj: Resource, reason: str, message: str, after: float) -> float:
        """Nothing is known of the remote, and nothing is concluded from that.

        What is only on its way and has not taken long has no message, and is not worth a write.
        """
        if message:
            writer = ConditionWriter(obj, self._ctx.now())
            writer.set("BranchDurable", None, reason, message)
            status = {**obj["status"], "conditions": writer.conditions}
            await self._ctx.write_status(obj, status)
        return after

    @staticmethod
    def _outcome(
        obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts
    ) -> Outcome:
        complete = dict(turn.complete or {})
        if info.kind == "plan" and len(turn.answer) > len(str(complete.get("answer") or "")):
            complete["answer"] = turn.answer
        interrupt = (attempt.get("interrupt") or {}).get("reason", "")
        verify = (obj["spec"].get("integration") or {}).get("verify")
        return settle(
            complete,
            turn.task_complete,
            info.kind,
            interrupt_reason=interrupt,
            report_required=info.kind != "integration" or verify is None,
        )

    def _note_refs(self, info: TaskInfo, closed: dict[str, Any], outcome: Outcome) -> None:
        """What the worker pushed is what the remote has now, whatever else came of the attempt."""
        project = self._ctx.world.projects.get(project_key(info)) if info.project else None
        git = outcome.git
        if project is None or git is None or not git.pushed or "ref" not in closed:
            return
        project.refs[closed["ref"]] = git.head_commit
        project.lost -= {git.head_commit}  # done again within a second it has the same hash
        if git.branch and outcome.reason not in ("BranchConflict", "BranchNotOurs"):
            branch = f"refs/heads/{task_branch(info.project, info.name)}"
            project.refs[branch] = git.head_commit

    async def _close(
        self,
        obj: Resource,
        info: TaskInfo,
        attempt: dict[str, Any],
        turn: TurnFacts | None,
        outcome: Outcome,
    ) -> float | None:
        """Write the end of an attempt; seconds until the task wants its next pass."""
        blocker = await self._refusals.note(obj, attempt, turn, outcome)
        status = dict(obj["status"])
        # Now: once the end is written, and before we know that it is, the next turn may begin.
        read = self._ctx.transcripts.end(attempt["job"])
        closed = self._closed(info, attempt, turn, outcome)
        self._note_refs(info, closed, outcome)
        status["attempts"] = [*status["attempts"][:-1], closed]
        status.pop("blocker", None)
        status.pop("nextAttemptAt", None)
        if outcome.verdict is Verdict.SUCCESS:
            self._succeed(status, info, obj, closed, outcome)
        else:
            excused = is_excused(outcome, began_late=turn is not None and turn.began_late)
            self._fail(status, info, obj, outcome, blocker, excused=excused)
        task_conditions(self._ctx, obj, status)
        status.pop("message", None)
        status["observedGeneration"] = obj["metadata"]["generation"]
        if outcome.verdict is Verdict.SUCCESS:  # first: a repetition makes the same Tasks
            await self._router.route(obj, info, closed, outcome.answer)
        stored = await self._ctx.write_status(obj, status)
        self._ctx.transcripts.settle(attempt["job"], read)
        self._ctx.turns.forget(attempt["injectionId"])
        self._ctx.delivered.discard(attempt["injectionId"])
        self._tell(stored, info, closed, outcome)
        return self._next_pass(stored, info)

    def _next_pass(self, stored: Resource, info: TaskInfo) -> float | None:
        after = seconds_of(stored["status"].get("nextAttemptAt"))
        if after is not None:
            return max(0.0, after - self._ctx.clock.now()) + 0.005
        more = "usage" in stored["status"] or "ttlSecondsAfterFinished" in stored["spec"]
        more = more or info.deleting or bool(wanted_retry(stored))
        return 0.01 if more or stored["status"]["phase"] == "Waiting" else None

    def _closed(
        self, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts | None, outcome: Outcome
    ) -> dict[str, Any]:
        closed = dict(attempt)
        merge_usage(self._ctx, info.key.namespace, closed, turn)
        closed["finishedAt"] = self._ctx.now()
        if turn is not None and turn.working_at is not None:
            closed.setdefault("turnStartedAt", stamp(turn.working_at))
        if turn is not None and turn.accepted_at is not None:
            closed.setdefault("startedAt", stamp(turn.accepted_at))
        success = outcome.verdict is Verdict.SUCCESS
        closed["state"] = "Succeeded" if success else "Failed"
        if not success:
            closed["class"] = str(outcome.failure or FailureClass.TASK)
            closed["reason"] = outcome.reason
            closed["message"] = outcome.message[:1024]
        if outcome.git is not None:
            closed["headCommit"] = outcome.git.head_commit
            closed["baseCommit"] = outcome.git.base_commit
        if "dependencies" in closed:  # from where they were fetched is of no interest any more
            closed["dependencies"] = [
                {"task": d["task"], "commit": d["commit"]} for d in closed["dependencies"]
            ]
        return closed

    def _succeed(
        self,
        status: dict[str, Any],
        info: TaskInfo,
        obj: Resource,
        closed: dict[str, Any],
        outcome: Outcome,
    ) -> None:
        for name in OF_A_RESULT:
            status.pop(name, None)
        status.pop("reason", None)
        status.pop("failures", None)
        status["phase"] = "Succeeded"
        status["finishedAt"] = self._ctx.now()
        if outcome.answer and info.kind != "plan":
            status["answer"] = last_bytes(outcome.answer, ANSWER_BYTES)
        if outcome.result is not None:
            status["result"] = _result(outcome.result)
            if outcome.result.verification:
                status["verification"] = first_bytes(outcome.result.verification, REPORT_BYTES)
        warnings = list(outcome.warnings)
        if outcome.git is not None and info.kind != "plan":
            git = outcome.git
            status["headCommit"], status["baseCommit"] = git.head_commit, git.base_commit
            status["headRef"] = closed["ref"]
            status["branch"] = task_branch(info.project, info.name)
            status["filesChanged"] = fitting(git.files_changed, FILES_BYTES)
            status["filesChangedCount"] = git.files_changed_count
            strays = outside(git.files_changed, info.owned_paths)
            warnings += [f"wrote outside its ownedPaths: {path}" for path in strays[:20]]
        if warnings:
            status["warnings"] = fitting([first_bytes(w, 500) for w in warnings], WARNINGS_BYTES)

    def _fail(
        self,
        status: dict[str, Any],
        info: TaskInfo,
        obj: Resource,
        outcome: Outcome,
        blocker: dict[str, Any] | None,
        *,
        excused: bool,
    ) -> None:
        failure = outcome.failure or FailureClass.TASK
        failures = count(Failures(**(status.get("failures") or {})), failure, progress=excused)
        status["failures"] = {
            "task": failures.task,
            "infrastructure": failures.infrastructure,
            "quota": failures.quota,
        }
        now = self._ctx.clock.now()
        step: Retry | GiveUp
        if outcome.verdict is Verdict.ATTENTION:
            step = GiveUp(outcome.reason, outcome.message)
            if outcome.result is not None:
                status["result"] = _result(outcome.result)
        elif info.cancel or info.deleting:
            step = GiveUp("Cancelled", "the task was cancelled")
        elif blocker is not None:
            status.update(phase="Waiting", reason=blocker["reason"], blocker=blocker)
            return
        elif excused:
            step = go_on(now)
        else:
            step = decide(
                failures,
                failure,
                self._limits(info, obj),
                now,
                uid=info.uid,
                retry_after=outcome.retry_after,
                overloaded=outcome.reason == OVERLOADED,
            )
            if isinstance(step, GiveUp) and outcome.reason == TIME_LIMIT:
                step = replace(step, message=f"{step.message}; {TOO_LONG}")
        if isinstance(step, Retry):
            status["phase"] = "Waiting"
            status["reason"] = "Backoff" if step.at > now else outcome.reason
            message = f"{step.message}, after: {outcome.message}"
            status["blocker"] = {"reason": "Backoff", "message": message[:1024]}
            if step.at > now:
                status["nextAttemptAt"] = stamp(step.at)
            return
        status["phase"] = "Cancelled" if step.reason == "Cancelled" else "Failed"
        status["reason"] = step.reason
        same = step.message == outcome.message
        message = step.message if same else f"{step.message}; {outcome.message}"
        status["message"] = message[:2048]
        status["finishedAt"] = self._ctx.now()

    def _limits(self, info: TaskInfo, obj: Resource) -> RetryLimits:
        project = self._ctx.world.projects.get(project_key(info)) if info.project else None
        retry = {**(project.retry if project else {}), **(obj["spec"].get("retry") or {})}
        defaults = RetryLimits()
        return RetryLimits(
            limit=retry.get("limit", defaults.limit),
            backoff_seconds=retry.get("backoffSeconds", defaults.backoff_seconds),
            max_backoff_seconds=retry.get("maxBackoffSeconds", defaults.max_backoff_seconds),
            infrastructure_limit=self._ctx.settings.limits.infrastructure_retries,
        )

    def _tell(
        self, obj: Resource, info: TaskInfo, closed: dict[str, Any], outcome: Outcome
    ) -> None:
        where = f"attempt {closed['number']} on {closed['swarm']}/{closed['worker']}"
        if outcome.verdict is Verdict.SUCCESS:
            self._ctx.event(obj, "Succeeded", where)
        else:
            text = f"{where}: {outcome.reason}: {outcome.message}"
            reason = "AttemptStopped" if has_progressed(outcome) else "AttemptFailed"
            self._ctx.event(obj, reason, text[:1024], warning=reason == "AttemptFailed")
