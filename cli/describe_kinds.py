"""What ``describe`` shows of one kind and no other: workers, tasks, merges, attempts, answers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cli import ages, outline, table
from cli.answers import asked_of
from cli.money import money
from cli.render import said
from controller.resources.conditions import find

if TYPE_CHECKING:
    from cli.client import Client
    from controller.store.base import Resource

MAX_FILES = 20
MAX_TASKS = 100
MAX_LINES = 400
"""Of a question's diff."""


def spec_of(obj: Resource) -> Mapping[str, Any]:
    """The spec as it is shown: without what a table shows better."""
    spec = dict(obj.get("spec") or {})
    if obj["kind"] == "Project" and spec.get("tasks"):
        spec["tasks"] = f"{len(spec['tasks'])} (below)"
    if obj["kind"] == "Approval" and spec.get("request"):
        below = ("command", "diff", "paths", "reason")
        spec["request"] = {k: v for k, v in spec["request"].items() if k not in below}
    return spec


def sections(client: Client, obj: Resource, now: float) -> Iterator[str]:
    """The lines of a kind's own."""
    own = _SECTIONS.get(obj["kind"])
    if own is not None:
        yield from own(client, obj, obj.get("status") or {}, now)


def _table(title: str, headers: list[str], rows: list[list[str]]) -> Iterator[str]:
    if rows:
        yield from table.section(title, headers, rows)


def _fields(title: str, pairs: list[tuple[str, Any]]) -> Iterator[str]:
    shown = [(name, outline.scalar(value)) for name, value in pairs if value not in (None, "", {})]
    if shown:
        yield f"{title}:"
        yield from (f"  {line}" for line in table.aligned(shown))


def _swarm(client: Client, obj: Resource, status: Mapping[str, Any], now: float) -> Iterator[str]:
    effective = status.get("effective") or {}
    agent = effective.get("agent") or {}
    yield from _fields(
        "Status",
        [
            ("Ready", status.get("ready")),
            ("Busy", status.get("busyReplicas")),
            ("Idle", status.get("idleReplicas")),
            ("Runtime", agent.get("runtime")),
            ("Model", agent.get("model")),
            ("Environment", _environment(agent)),
            ("Persona", _persona(agent)),
            ("Provider", ", ".join(effective.get("provider") or {})),
            ("Launch failures", status.get("launchFailures") or None),
            ("Next launch at", status.get("nextLaunchAt")),
            ("Refused", _refused(status)),
            ("Archive", status.get("archivePath")),
            ("Machines", _machines(status)),
            *_usage(status),
        ],
    )
    rows = [
        [
            str(worker.get("index", "")),
            worker.get("phase", ""),
            worker.get("task", ""),
            worker.get("job", ""),
            worker.get("handle", ""),
            ages.age(worker.get("readyAt") or worker.get("launchedAt"), now),
            money(worker.get("costUsd")),
            _reason(worker),
        ]
        for worker in status.get("workers") or []
    ]
    headers = ["INDEX", "PHASE", "TASK", "JOB", "HANDLE", "SINCE", "COST", "REASON"]
    yield from _table("Workers", headers, rows)


def _machines(status: Mapping[str, Any]) -> str:
    """How many machines of its own a swarm has, and their part of its cost."""
    found = status.get("machines") or {}
    if not found:
        return ""
    cost = str(found.get("costUsd") or "unpriced")
    parts = [f"{found.get('count', 0)}, {found.get('hours', '0')} hours so far"]
    parts += [] if cost == "unpriced" else [f"{money(cost)} of its cost"]
    lacks = found.get("unpriced")
    parts += [f"without a price in instancePricing: {', '.join(lacks)}"] if lacks else []
    return ", ".join(parts)


def _environment(agent: Mapping[str, Any]) -> str:
    """Where an agent's variables come from; their values are nowhere to be read."""
    profile, names = agent.get("envProfile"), [item["name"] for item in agent.get("env") or ()]
    return "; ".join([*([f"profile {profile}"] if profile else []), *names])


def _persona(agent: Mapping[str, Any]) -> str:
    persona = agent.get("persona") or {}
    if "configMapRef" in persona:
        return f"ConfigMap {persona['configMapRef']['name']}"
    return str(persona.get("path") or "")


def _reason(entry: Mapping[str, Any]) -> str:
    reason, message = entry.get("reason") or "", entry.get("message") or ""
    return f"{reason}: {message}" if reason and message else reason or message


def _refused(status: Mapping[str, Any]) -> str:
    """What the model's provider does not give now."""
    quota = status.get("quota") or {}
    held = find(status.get("conditions") or [], "QuotaAvailable") or {}
    if not quota or held.get("status") != "False":
        return ""
    return f"{quota['reason']} ({quota['refusals']} in a row), no turns before {quota['until']}"


def _usage(status: Mapping[str, Any]) -> list[tuple[str, Any]]:
    usage = status.get("usage") or {}
    if not usage.get("totalTokens"):
        return [("Cost", _cost(status))]
    names = (("inputTokens", "in"), ("cachedInputTokens", "cached"), ("outputTokens", "out"))
    parts = ", ".join(f"{usage[n]:,} {word}" for n, word in names if usage.get(n))
    return [("Tokens", f"{usage['totalTokens']:,} ({parts})"), ("Cost", _cost(status))]


def _cost(status: Mapping[str, Any]) -> str:
    cost, model = money(status.get("costUsd")), status.get("pricingModel")
    return f"{cost} ({model})" if cost and model and model != cost else cost


def _project(client: Client, obj: Resource, status: Mapping[str, Any], now: float) -> Iterator[str]:
    repository, integration = status.get("repository") or {}, status.get("integration") or {}
    yield from _fields(
        "Status",
        [
            ("Done", status.get("progress")),
            ("Repository", repository.get("url")),
            ("Base", _at(repository.get("baseBranch"), repository.get("baseCommit"))),
            ("Branch", status.get("branch")),
            ("Integration", _at(integration.get("state"), integration.get("headCommit"))),
            ("Needs attention", ", ".join(status.get("attention") or [])),
            *_usage(status),
        ],
    )
    name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "default")
    tasks = [t for t in client.list("Task", namespace) if t["spec"].get("project") == name]
    yield from _table(
        f"Tasks ({len(tasks)})",
        ["NAME", "PHASE", "ATTEMPT", "COST", "TITLE", "REASON"],
        _tasks(tasks),
    )
    merges = [
        [merge.get("task", ""), merge.get("state", ""), (merge.get("commit") or "")[:10]]
        for merge in integration.get("merges") or []
    ]
    yield from _table("Merges", ["TASK", "STATE", "COMMIT"], merges)


def _at(name: str | None, commit: str | None) -> str:
    return " at ".join(part for part in (name, (commit or "")[:10]) if part)


def _tasks(tasks: list[Resource]) -> list[list[str]]:
    rows = []
    for task in tasks[:MAX_TASKS]:
        status = task.get("status") or {}
        attempts = status.get("attempts") or []
        why = (status.get("blocker") or {}).get("message") or status.get("reason") or ""
        rows.append(
            [
                task["metadata"]["name"],
                status.get("phase", ""),
                str(attempts[-1]["number"]) if attempts else "",
                money(status.get("costUsd")),
                task["spec"].get("title", ""),
                why,
            ]
        )
    return rows


def _task(client: Client, obj: Resource, status: Mapping[str, Any], now: float) -> Iterator[str]:
    blocker = status.get("blocker") or {}
    on = blocker.get("on")
    on_text = f" ({on['kind'].lower()}/{on['name']})" if on else ""
    result = status.get("result") or {}
    yield from _fields(
        "Status",
        [
            ("Waits", _reason(blocker) + on_text if blocker else ""),
            ("Next attempt at", status.get("nextAttemptAt")),
            ("Progress", status.get("progress")),
            ("Branch", status.get("branch")),
            ("Base", (status.get("baseCommit") or "")[:10]),
            ("Head", (status.get("headCommit") or "")[:10]),
            ("Started", status.get("startedAt")),
            ("Finished", status.get("finishedAt")),
            ("Result", result.get("status")),
            ("Notes", result.get("notes")),
            ("Verification", status.get("verification")),
            *_usage(status),
        ],
    )
    files = status.get("filesChanged") or []
    if files:
        yield f"Files Changed ({status.get('filesChangedCount', len(files))}):"
        yield from (f"  {outline.scalar(path)}" for path in files[:MAX_FILES])
        if len(files) > MAX_FILES:
            yield "  ..."
    if status.get("answer"):
        yield "Answer:"
        yield from outline.text(said(status["answer"]), 2, limit=MAX_FILES)
    for warning in status.get("warnings") or []:
        yield f"Warning:  {outline.scalar(warning)}"
    yield from _attempts(status, now)


def _attempts(status: Mapping[str, Any], now: float) -> Iterator[str]:
    rows = [
        [
            str(a["number"]),
            a.get("state", ""),
            a.get("class", ""),
            f"{a.get('swarm', '')}/{a.get('worker', '')}" if a.get("swarm") else "",
            ages.age(a.get("startedAt") or a.get("assignedAt"), now),
            _took(a),
            (a.get("headCommit") or "")[:10],
            money(a.get("costUsd")),
            _reason(a),
        ]
        for a in status.get("attempts") or []
    ]
    headers = ["NUMBER", "STATE", "CLASS", "WORKER", "STARTED", "TOOK", "HEAD", "COST", "REASON"]
    folded = (status.get("folded") or {}).get("attempts")
    title = f"Attempts ({folded} older ones not shown)" if folded else "Attempts"
    yield from _table(title, headers, rows)


def _took(attempt: Mapping[str, Any]) -> str:
    begin, end = attempt.get("startedAt") or attempt.get("assignedAt"), attempt.get("finishedAt")
    if not begin or not end:
        return ""
    seconds = ages.parse(end) - ages.parse(begin)
    return f"{seconds:.1f}s" if 0 <= seconds < 10 else ages.human(seconds)


def _approval(
    client: Client, obj: Resource, status: Mapping[str, Any], now: float
) -> Iterator[str]:
    delivered, request = status.get("delivered"), obj["spec"].get("request") or {}
    by = status.get("by")
    if by and status.get("source") == "person":
        by += " (verified)" if status.get("byVerified") else " (as the client says)"
    yield from _fields(
        "Status",
        [
            ("Outcome", status.get("outcome")),
            ("Given by", status.get("source")),
            ("By", by),
            ("Decided at", status.get("decidedAt")),
            ("Delivered", None if delivered is None else delivered),
            ("Delivered at", status.get("deliveredAt")),
            ("Expires at", None if status.get("outcome") else request.get("expiresAt")),
        ],
    )
    yield "Question:"
    for line in asked_of(request, MAX_LINES):
        yield f"  {table.clean(line)}"


def _secret(client: Client, obj: Resource, status: Mapping[str, Any], now: float) -> Iterator[str]:
    """Sizes only: values are not shown."""
    yield from _table(
        "Data",
        ["KEY", "BYTES"],
        [[name, _bytes(value)] for name, value in (obj.get("data") or {}).items()],
    )


def _bytes(value: str) -> str:
    try:
        return str(len(base64.b64decode(value)))
    except (binascii.Error, ValueError):
        return "?"


def _config_map(
    client: Client, obj: Resource, status: Mapping[str, Any], now: float
) -> Iterator[str]:
    yield "Data:"
    yield from outline.lines(obj.get("data") or {}, 2)


_SECTIONS: Mapping[str, Callable[[Client, Resource, Mapping[str, Any], float], Iterator[str]]] = (
    MappingProxyType(
        {
            "Swarm": _swarm,
            "Project": _project,
            "Task": _task,
            "Approval": _approval,
            "Secret": _secret,
            "ConfigMap": _config_map,
        }
    )
)
