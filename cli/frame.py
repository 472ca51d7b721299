"""One frame of ``top``, drawn with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli import ages, overview
from cli.money import money
from cli.table import cell

if TYPE_CHECKING:
    from cli.client import ControllerState
    from cli.overview import Overview
    from controller.store.base import Resource

MAX_WORKERS = 32
MAX_TASKS = 20
MAX_ATTENTION = 5
BAR_WIDTH = 20
_STYLES = {
    "Succeeded": "green", "Completed": "green", "Idle": "green", "Running": "cyan",
    "Busy": "cyan", "Integrating": "cyan", "Launching": "cyan", "Starting": "cyan",
    "Planning": "cyan", "Failed": "red", "Lost": "red", "Degraded": "yellow",
    "Attention": "yellow", "Terminating": "yellow", "Draining": "yellow",
}  # fmt: skip


def frame(seen: Overview, state: ControllerState, namespace: str, now: float) -> RenderableType:
    """Everything on one screen; ``now`` in seconds since the epoch."""
    word = "running" if state.running else "stopped"
    head = Text.assemble(
        ("codeswarm", "bold"),
        f"  {ages.clock(now)}  namespace {namespace}  controller ",
        (word, "green" if state.running else "yellow"),
        f" ({state.detail})",
    )
    parts: list[RenderableType] = [head]
    for table in (_swarms(seen), _workers(seen, now), _projects(seen), _tasks(seen, now)):
        if table.row_count:
            parts += [Text(""), table]
    parts += [Text(""), Text(f"{len(seen.tasks)} tasks: {_counts(seen)}")]
    lines = overview.attention(seen)
    if lines:
        parts += [Text(""), Text("Needs attention", style="bold yellow")]
        parts += [Text(f"  {cell(line)}", style="yellow") for line in lines[:MAX_ATTENTION]]
    if len(lines) > MAX_ATTENTION:
        parts.append(Text(f"  ... and {len(lines) - MAX_ATTENTION} more: codeswarm status"))
    return Group(*parts)


def _counts(seen: Overview) -> str:
    phases = [overview.phase_of(task) for task in seen.tasks]
    counts = {
        "succeeded": phases.count("Succeeded"),
        "running": phases.count("Running"),
        "waiting": phases.count("Pending") + phases.count("Waiting"),
        "failed": phases.count("Failed"),
        "cancelled": phases.count("Cancelled"),
    }
    always = ("succeeded", "waiting")
    return ", ".join(f"{n} {word}" for word, n in counts.items() if n or word in always)


def _table(headers: str, rows: list[list[Text | ProgressBar]], flexible: str) -> Table:
    """A table; where it is too wide, the flexible columns are cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for number, header in enumerate(headers.split(",")):
        cells = [row[number] for row in rows]
        widths = [len(part) if isinstance(part, Text) else BAR_WIDTH for part in cells]
        fixed = None if header in flexible.split(",") else max([len(header), *widths])
        table.add_column(header, no_wrap=True, overflow="ellipsis", min_width=fixed)
    for row in rows:
        table.add_row(*row)
    return table


def _texts(rows: list[list[str]]) -> list[list[Text | ProgressBar]]:
    return [[_text(value) for value in row] for row in rows]


def _text(value: str) -> Text:
    shown = cell(value)
    return Text(shown, style=_STYLES.get(shown, ""))


def _swarms(seen: Overview) -> Table:
    rows = _texts(overview.swarm_rows(seen))
    return _table("SWARM,PHASE,READY,BUSY,RUNTIME,COST,REASON", rows, "REASON")


def _workers(seen: Overview, now: float) -> Table:
    rows = [row for swarm in seen.swarms for row in overview.worker_rows(swarm, now, seen.tasks)]
    return _table("WORKER,PHASE,TASK,SINCE,REASON", _texts(rows[:MAX_WORKERS]), "TASK,REASON")


def _projects(seen: Overview) -> Table:
    rows: list[list[Text | ProgressBar]] = []
    for project in seen.projects:
        done, total = overview.done_of(project)
        status = overview.status_of(project)
        rows.append(
            [
                _text(overview.name_of(project)),
                _text(overview.phase_of(project)),
                Text(f"{done}/{total}"),
                ProgressBar(total=max(total, 1), completed=done, width=BAR_WIDTH),
                _text(status.get("branch") or ""),
                _text(money(status.get("costUsd"))),
            ]
        )
    return _table("PROJECT,PHASE,DONE,,BRANCH,COST", rows, "BRANCH")


def _tasks(seen: Overview, now: float) -> Table:
    rows = []
    for task in overview.running_tasks(seen)[:MAX_TASKS]:
        attempt = _last_attempt(task)
        rows.append(
            [
                overview.name_of(task),
                f"{attempt.get('swarm', '')}/{attempt.get('worker', '')}",
                ages.age(attempt.get("startedAt") or attempt.get("assignedAt"), now),
                task["spec"].get("title") or "",
            ]
        )
    return _table("RUNNING TASK,WORKER,FOR,TITLE", _texts(rows), "RUNNING TASK,TITLE")


def _last_attempt(task: Resource) -> dict[str, str]:
    attempts = overview.status_of(task).get("attempts") or [{}]
    found: dict[str, str] = attempts[-1]
    return found
