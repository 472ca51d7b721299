"""One attempt of a Task: how it begins, what its worker is told, how it reads in status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from controller.domain.cost import NOTHING, Spent, spent_of_row, text
from controller.domain.outcome import LEFT, OUT_OF_MEMORY
from controller.domain.prompts import Dependency, Previous, Work, retry_note, work_prompt
from controller.domain.usage import to_status
from controller.reconcile.context import Context
from controller.reconcile.infos import OPEN_STATES, ProjectInfo, TaskInfo, WorkerInfo, project_key
from controller.reconcile.readiness import unready
from controller.reconcile.sizes import first_bytes
from controller.resources.names import attempt_ref, injection_id, task_branch
from controller.resources.texts import Unresolved
from controller.store.base import Resource
from worker.records import DependencyRef, IntegrationWork, RepositoryRef

KEEP_ATTEMPTS = 10
MAX_FOLDED = 50
OLD_MESSAGE_BYTES = 200
_OWN_FAILURES = frozenset({"Task", "Timeout"})


class Undeliverable(Exception):
    """The task cannot be given to a worker now; a pass of it finds out why."""


def open_attempt(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """The attempt that has not ended, if any."""
    attempts = status.get("attempts") or ()
    if attempts and attempts[-1]["state"] in OPEN_STATES:
        return dict(attempts[-1])
    return None


def begin_attempt(ctx: Context, obj: Resource, worker: WorkerInfo) -> dict[str, Any]:
    """The status that says: this worker is to do this task, under this identity.

    Raises: Undeliverable (the object is not what the decision was made from).
    """
    info = ctx.world.info_of(obj)
    reason = unready(ctx.world, info, ctx.clock.now())
    if reason:
        raise Undeliverable(f"the task is not ready: {reason}")
    if not ctx.world.is_ready(worker):
        raise Undeliverable(f"worker {worker.job} takes no more tasks")
    status = dict(obj.get("status") or {})
    if info.attempt_revision != info.revision:
        status.pop("failures", None)
    number = _last_number(status) + 1
    attempt: dict[str, Any] = {
        "number": number,
        "revision": info.revision,
        "injectionId": injection_id(info.uid, number),
        "swarm": worker.swarm.name,
        "worker": worker.index,
        "job": worker.job,
        "state": "Assigned",
        "assignedAt": ctx.now(),
    }
    if info.project:
        project = ctx.world.projects[project_key(info)]
        _pin(ctx, obj, info, project, attempt)
    status["attempts"] = [*map(_shortened, status.get("attempts") or ()), attempt]
    status["phase"] = "Running"
    status["observedGeneration"] = obj["metadata"]["generation"]
    for stale in ("blocker", "nextAttemptAt", "reason", "finishedAt"):
        status.pop(stale, None)
    status.setdefault("startedAt", ctx.now())
    return fold_old_attempts(status)


def _shortened(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """A closed attempt as it is kept beside a newer one: one row of usage for each model."""
    short = {k: v for k, v in attempt.items() if k != "dependencies"}
    if "message" in short:
        short["message"] = first_bytes(short["message"], OLD_MESSAGE_BYTES)
    if attempt.get("usage"):
        rows = _summed(attempt["usage"], ("model", "pricingModel"))
        short["usage"] = [{"session": "", "model": "", **row} for row in rows]
    return short


def _summed(rows: Iterable[Mapping[str, Any]], fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of usage added up where ``fields`` are the same; with and without a price apart."""
    sums: dict[tuple[Any, ...], tuple[dict[str, Any], Spent]] = {}
    for row in rows:
        names = {field: row[field] for field in fields if row.get(field)}
        key = (*(names.get(field, "") for field in fields), "costUsd" in row)
        _, spent = sums.get(key, (names, NOTHING))
        sums[key] = names, spent + spent_of_row(row)
    return [
        {
            **names,
            **({"costUsd": text(spent.cost)} if priced else {}),
            **to_status(spent.usage),
        }
        for (*_, priced), (names, spent) in sorted(sums.items(), key=itemgetter(0))
        if spent
    ]


def _bounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most ``MAX_FOLDED`` rows: first workers are not told apart any more, then models."""
    for fields in (("swarm", "model", "pricingModel"), ("swarm",)):
        if len(rows) > MAX_FOLDED:
            rows = _summed(rows, fields)
    return rows[:MAX_FOLDED]


def _last_number(status: Mapping[str, Any]) -> int:
    attempts = status.get("attempts") or ()
    return int(attempts[-1]["number"]) if attempts else 0


def _pin(
    ctx: Context, obj: Resource, info: TaskInfo, project: ProjectInfo, attempt: dict[str, Any]
) -> None:
    """Fix what the attempt starts from and where its work will be pushed."""
    if not project.base_commit:
        raise Undeliverable(f"the base commit of project {info.project} is not known yet")
    attempt["baseCommit"] = project.base_commit
    if info.kind == "plan":
        return
    branch = task_branch(info.project, info.name)
    attempt["ref"] = attempt_ref(info.uid, attempt["number"])
    attempt["expected"] = expected_value(obj, project, f"refs/heads/{branch}")
    if info.kind == "integration":
        attempt["baseCommit"] = obj["spec"]["integration"]["baseCommit"]
        return
    dependencies = []
    for name in info.depends_on:
        done = ctx.world.dependency(info, name)
        if done is None or not done.head:
            raise Undeliverable(f"{name} has no result")
        dependencies.append({"task": name, "commit": done.head, "ref": done.head_ref})
    if dependencies:
        attempt["dependencies"] = dependencies


def expected_value(obj: Resource, project: ProjectInfo, branch: str) -> str:
    """The branch's value that an attempt may replace: one that this task made, else none.

    A branch that this task's uid did not make is expected to be absent, so that a push to it is
    refused.
    """
    value = project.refs.get(branch, "")
    return value if value and value in made_by(obj, project.refs) else ""


def made_by(obj: Resource, refs: Mapping[str, str]) -> set[str]:
    """Commits that attempts of this task have made, as the remote and its status tell."""
    mine = attempt_ref(obj["metadata"]["uid"], 0).removesuffix("0")
    made = {commit for ref, commit in refs.items() if ref.startswith(mine)}
    status = obj.get("status") or {}
    made.update(a["headCommit"] for a in status.get("attempts") or () if a.get("headCommit"))
    if status.get("headCommit"):
        made.add(status["headCommit"])
    return made


def fold_old_attempts(status: dict[str, Any]) -> dict[str, Any]:
    """Keep the last ten attempts; what older ones were and used goes into sums, once."""
    attempts = status["attempts"]
    if len(attempts) <= KEEP_ATTEMPTS:
        return status
    folded = dict(status.get("folded") or {})
    rows = list(folded.get("usage") or ())
    for attempt in attempts[:-KEEP_ATTEMPTS]:
        folded["attempts"] = folded.get("attempts", 0) + 1
        kind = attempt.get("class")
        name = {"Task": "taskFailures", "Infrastructure": "infrastructureFailures"}.get(kind or "")
        if name:
            folded[name] = folded.get(name, 0) + 1
        rows += [
            {**session, "swarm": attempt["swarm"], "job": attempt["job"]}
            for session in attempt.get("usage") or ()
        ]
    if rows:
        folded["usage"] = _bounded(_summed(rows, ("swarm", "job", "model", "pricingModel")))
    status["attempts"] = attempts[-KEEP_ATTEMPTS:]
    status["folded"] = folded
    return status


def user_record(ctx: Context, obj: Resource) -> tuple[dict[str, Any], dict[str, str] | None]:
    """The inbox record of the open attempt, and the secrets that go beside it.

    Raises: Undeliverable (a text, a ConfigMap or a Secret is missing).
    """
    info = ctx.world.info_of(obj)
    attempt = obj["status"]["attempts"][-1]
    project = ctx.world.projects.get(project_key(info)) if info.project else None
    if info.project and project is None:
        raise Undeliverable(f"project {info.project} is gone")
    record: dict[str, Any] = {
        "type": "user",
        "epoch": ctx.epoch,
        "injection_id": attempt["injectionId"],
        "content": _content(ctx, obj, info, attempt),
        "task": {
            "name": info.key.name,
            "uid": info.uid,
            "kind": info.kind,
            "attempt": attempt["number"],
        },
    }
    if project is None:
        return record, None
    record["task"]["project"] = info.project
    record["task"]["task_id"] = obj["spec"].get("taskId") or info.name
    record["task"]["title"] = obj["spec"].get("title") or info.name
    record["repository"] = _repository(project, info, attempt)
    previous = _previous(obj["status"]["attempts"][:-1], info)
    if previous is not None and previous.commit:
        earlier = DependencyRef(task=info.name, commit=previous.commit, ref=previous.ref)
        record["repository"]["previous"] = earlier
    if info.kind == "integration":
        record["integration"] = _integration(obj)
    return record, _credentials(ctx, project)


def _content(ctx: Context, obj: Resource, info: TaskInfo, attempt: Mapping[str, Any]) -> str:
    spec = obj["spec"]
    text = ctx.text(obj, spec, "prompt")
    if text is None or isinstance(text, Unresolved):
        raise Undeliverable(text.message if text else "the task has no prompt")
    previous = _previous(obj["status"]["attempts"][:-1], info)
    if info.kind != "work":
        note = f"{retry_note(previous)}\n\n" if previous else ""
        return f"{note}{text}"
    return work_prompt(
        Work(
            task_id=spec.get("taskId") or info.name,
            title=spec.get("title") or "",
            prompt=text,
            branch=task_branch(info.project, info.name),
            acceptance_criteria=tuple(spec.get("acceptanceCriteria") or ()),
            owned_paths=info.owned_paths,
            dependencies=tuple(
                Dependency(name=d["task"], commit=d["commit"])
                for d in attempt.get("dependencies") or ()
            ),
            previous=previous,
        )
    )


def _previous(attempts: Sequence[Mapping[str, Any]], info: TaskInfo) -> Previous | None:
    """What the next attempt is to know: the last failure that it can avoid, or work that a worker
    kept which had to leave; of this revision."""
    for attempt in reversed(attempts):
        commit = attempt.get("headCommit", "")
        stopped = attempt.get("reason") in LEFT and bool(commit)
        wanted = stopped or attempt.get("class") in _OWN_FAILURES
        wanted = wanted or attempt.get("reason") == OUT_OF_MEMORY  # it may take less
        if attempt.get("revision") == info.revision and wanted:
            ref = attempt.get("ref", "") if commit else ""
            return Previous(
                attempt=attempt["number"],
                reason=attempt.get("reason", ""),
                message=attempt.get("message", ""),
                ref=ref,
                commit=commit if ref else "",
                stopped=stopped,
            )
    return None


def _repository(project: ProjectInfo, info: TaskInfo, attempt: Mapping[str, Any]) -> RepositoryRef:
    record: RepositoryRef = {
        "url": project.url,
        "project_uid": project.uid,
        "base_branch": project.base_branch,
        "base_commit": attempt["baseCommit"],
        "dependencies": [
            {"task": d["task"], "commit": d["commit"], "ref": d["ref"]}
            for d in attempt.get("dependencies") or ()
        ],
    }
    if "ref" in attempt:
        record["attempt_ref"] = attempt["ref"]
        record["branch"] = task_branch(info.project, info.name)
        record["expected"] = attempt.get("expected", "")
    return record


def _integration(obj: Resource) -> IntegrationWork:
    work = obj["spec"]["integration"]
    return {
        "merges": [
            {"task": h["task"], "commit": h["commit"], "ref": h["ref"]} for h in work["heads"]
        ],
        "verify": work.get("verify"),
    }


def _credentials(ctx: Context, project: ProjectInfo) -> dict[str, str] | None:
    """What git needs to reach the remote, resolved afresh for each delivery."""
    obj = ctx.store.get(project.key)
    spec = (obj or {}).get("spec", {}).get("repository", {}).get("credentials") or {}
    if obj is None or not spec:
        return None
    secrets: dict[str, str] = {}
    for field, name in (("tokenFrom", "token"), ("sshKeyFrom", "sshKey")):
        if field in spec:
            value = ctx.secret(obj, spec[field], f"credentials.{field}")
            if isinstance(value, Unresolved):
                raise Undeliverable(value.message)
            secrets[name] = value
    if spec.get("knownHosts"):
        secrets["knownHosts"] = spec["knownHosts"]
    return secrets or None
