"""A project's tasks as a graph: what is wrong with it, and in which order it is done."""

from __future__ import annotations

from controller.domain import graph
from controller.domain.graph import GraphProblem, Node
from controller.reconcile.context import Context
from controller.reconcile.world import TaskInfo
from controller.store.base import Key


def work_tasks(ctx: Context, key: Key) -> dict[str, TaskInfo]:
    """The project's own tasks by name: neither plan nor integration, none that was removed."""
    info = ctx.world.projects.get(key)
    order = info.order if info else {}
    members = ctx.world.members(key).values()
    tasks = [t for t in members if t.kind == "work" and not t.deleting]
    tasks = [t for t in tasks if not (t.cancel and t.name not in order and t.hash)]
    tasks.sort(key=lambda t: (order.get(t.name, len(order)), t.created, t.name))
    return {t.name: t for t in tasks}


def graph_problem(ctx: Context, key: Key) -> GraphProblem | None:
    """The first problem of the graph; cycles are put into the world for ``explain``."""
    tasks = work_tasks(ctx, key)
    nodes = [Node(t.name, t.depends_on) for t in tasks.values()]
    info = ctx.world.projects.get(key)
    found = graph.validate(nodes) if nodes else []
    if info is not None:
        rings = graph.cycles(nodes) if found else []
        fresh = {name: ring for ring in rings for name in ring}
        if fresh != info.cycles:
            info.cycles = fresh
            for task in tasks.values():
                ctx.queue.add(task.key)
    return found[0] if found else None


def merge_order(tasks: dict[str, TaskInfo]) -> list[TaskInfo]:
    """The tasks in dependency order, stable by their order in the graph."""
    names = graph.order([Node(t.name, t.depends_on) for t in tasks.values()])
    return [tasks[name] for name in names]
