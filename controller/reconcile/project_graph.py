"""A project's tasks as a graph: what is wrong with it, and in which order it is done."""

from __future__ import annotations

from controller.domain import graph
from controller.domain.graph import GraphProblem, Node
from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo
from controller.reconcile.world import World
from controller.store.base import Key


def work_tasks(ctx: Context, key: Key) -> dict[str, TaskInfo]:
    """The project's own tasks by name: neither plan nor integration, none that was removed."""
    members = ctx.world.members(key)
    return {name: members[name] for name in ctx.world.per_shape(key, "names", _names)}


def _names(world: World, key: Key) -> list[str]:
    info = world.projects.get(key)
    order = info.order if info else {}
    tasks = [t for t in world.members(key).values() if t.kind == "work" and not t.deleting]
    tasks = [t for t in tasks if not (t.cancel and t.name not in order and t.hash)]
    tasks.sort(key=lambda t: (order.get(t.name, len(order)), t.created, t.name))
    return [t.name for t in tasks]


def _nodes(world: World, key: Key) -> list[Node]:
    members = world.members(key)
    names: list[str] = world.per_shape(key, "names", _names)
    return [Node(name, members[name].depends_on) for name in names]


def _problems(world: World, key: Key) -> tuple[list[GraphProblem], dict[str, tuple[str, ...]]]:
    nodes = _nodes(world, key)
    found = graph.validate(nodes) if nodes else []
    rings = graph.cycles(nodes) if found else []
    return found, {name: ring for ring in rings for name in ring}


def graph_problem(ctx: Context, key: Key) -> GraphProblem | None:
    """The first problem of the graph; cycles are put into the world for ``explain``."""
    found, cycles = ctx.world.per_shape(key, "problems", _problems)
    info = ctx.world.projects.get(key)
    if info is not None and cycles != info.cycles:
        info.cycles = cycles
        for task in work_tasks(ctx, key).values():
            ctx.queue.add(task.key)
    return found[0] if found else None


def merge_order(tasks: dict[str, TaskInfo]) -> list[TaskInfo]:
    """The tasks in dependency order, stable by their order in the graph."""
    names = graph.order([Node(t.name, t.depends_on) for t in tasks.values()])
    return [tasks[name] for name in names]
