"""Task graphs: what is wrong with one, its order, and who waits for whom.

Nothing here recurses, so that a chain of 10,000 tasks is as good as any.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

SHOWN = 20
"""Names of a long cycle that a message shows (``GraphProblem.chain`` has all)."""
SUGGESTED = 20
"""Unknown dependencies for which a similar name is searched (the search is slow)."""


@dataclass(frozen=True, slots=True)
class Node:
    """A task, as far as the graph is concerned."""

    name: str
    depends_on: tuple[str, ...] = ()


class GraphReason(StrEnum):
    """What can be wrong with a graph."""

    EMPTY = "Empty"
    DUPLICATE = "DuplicateName"
    UNKNOWN_DEPENDENCY = "DependencyNotFound"
    SELF_DEPENDENCY = "SelfDependency"
    CYCLE = "DependencyCycle"


@dataclass(frozen=True, slots=True)
class GraphProblem:
    """One exact fault of a graph."""

    reason: GraphReason
    message: str
    node: str = ""
    chain: tuple[str, ...] = ()
    """A cycle's names in the order of dependence, the first one again at the end."""


class GraphError(ValueError):
    """An order was asked of a graph that has none."""


def validate(nodes: Sequence[Node]) -> list[GraphProblem]:
    """Everything that is wrong with the graph, in the order of its nodes; cycles last."""
    if not nodes:
        return [GraphProblem(GraphReason.EMPTY, "the graph has no tasks")]
    problems = list(_duplicates(nodes))
    problems += _bad_dependencies(nodes)
    for chain in cycles(nodes):
        message = f"the dependencies form a cycle: {describe_chain(chain)}"
        problems.append(GraphProblem(GraphReason.CYCLE, message, chain[0], chain))
    return problems


def describe_chain(chain: Sequence[str]) -> str:
    """``a -> b -> a``; a chain of more than ``SHOWN`` names without its middle."""
    if len(chain) <= SHOWN:
        return " -> ".join(chain)
    left_out = len(chain) - SHOWN
    head, tail = chain[: SHOWN - 5], chain[-5:]
    return " -> ".join([*head, f"... ({left_out} more) ...", *tail])


def _duplicates(nodes: Sequence[Node]) -> Iterator[GraphProblem]:
    seen: dict[str, int] = {}
    for node in nodes:
        seen[node.name] = seen.get(node.name, 0) + 1
        if seen[node.name] == 2:
            message = f"task {node.name!r} is defined more than once"
            yield GraphProblem(GraphReason.DUPLICATE, message, node.name)


def _bad_dependencies(nodes: Sequence[Node]) -> Iterator[GraphProblem]:
    names = {node.name: None for node in nodes}
    suggestions = SUGGESTED
    for node in nodes:
        for dependency in dict.fromkeys(node.depends_on):
            if dependency == node.name:
                message = f"task {node.name!r} depends on itself"
                yield GraphProblem(GraphReason.SELF_DEPENDENCY, message, node.name)
            elif dependency not in names:
                message = f"task {node.name!r} depends on {dependency!r}, which is not a task"
                if suggestions > 0:
                    suggestions -= 1
                    message += did_you_mean(dependency, names)
                yield GraphProblem(GraphReason.UNKNOWN_DEPENDENCY, message, node.name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'library'?`` if a known name is close to ``name``, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _dependencies(nodes: Iterable[Node]) -> dict[str, tuple[str, ...]]:
    """Known dependencies by name, each once; the first of several nodes of one name counts."""
    first: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        first.setdefault(node.name, node.depends_on)
    return {
        name: tuple(dict.fromkeys(d for d in depends_on if d in first and d != name))
        for name, depends_on in first.items()
    }


def cycles(nodes: Sequence[Node]) -> list[tuple[str, ...]]:
    """Cycles as chains ``(a, b, a)``, where a depends on b; no task is in two of them.

    Self-dependencies are left out. Every graph with a cycle gives at least one. O(V + E).
    """
    edges = _dependencies(nodes)
    found: list[tuple[str, ...]] = []
    reported: set[str] = set()
    finished: set[str] = set()
    for start in edges:
        if start in finished:
            continue
        path: dict[str, Iterator[str]] = {start: iter(edges[start])}
        while path:
            name, rest = next(reversed(path.items()))
            following = next(rest, None)
            if following is None:
                finished.add(name)
                path.popitem()
            elif following in path:
                if following not in reported:
                    chain = _tail(path, following)
                    if reported.isdisjoint(chain):
                        reported.update(chain)
                        found.append((*chain, following))
            elif following not in finished:
                path[following] = iter(edges[following])
    return found


def _tail(path: dict[str, Iterator[str]], start: str) -> list[str]:
    """The keys of ``path`` from ``start`` to the end."""
    names: list[str] = []
    for name in reversed(path):
        names.append(name)
        if name == start:
            break
    names.reverse()
    return names


def order(nodes: Sequence[Node]) -> list[str]:
    """Names so that each comes after its dependencies, otherwise as given.

    Among the tasks that could come next, the one that was given first does.  Unknown
    dependencies and self-dependencies do not count.

    Raises: GraphError if there is a cycle.
    """
    edges = _dependencies(nodes)
    place = {name: number for number, name in enumerate(edges)}
    names = list(edges)
    waiting = [len(depends_on) for depends_on in edges.values()]
    followers = dependents(nodes)
    ready = [number for number, count in enumerate(waiting) if count == 0]
    ordered: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        ordered.append(name)
        for follower in followers[name]:
            number = place[follower]
            waiting[number] -= 1
            if waiting[number] == 0:
                heapq.heappush(ready, number)
    if len(ordered) != len(names):
        chain = cycles(nodes)[0]
        raise GraphError(f"the dependencies form a cycle: {describe_chain(chain)}")
    return ordered


def dependents(nodes: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """For each name those that depend on it directly, in given order."""
    edges = _dependencies(nodes)
    followers: dict[str, list[str]] = {name: [] for name in edges}
    for name, depends_on in edges.items():
        for dependency in depends_on:
            followers[dependency].append(name)
    return {name: tuple(found) for name, found in followers.items()}


def all_dependents(nodes: Sequence[Node], of: Iterable[str]) -> set[str]:
    """Everything that depends on one of ``of``, directly or not; ``of`` itself left out."""
    followers = dependents(nodes)
    start = set(of)
    found: set[str] = set()
    pending = list(start)
    while pending:
        for follower in followers.get(pending.pop(), ()):
            if follower not in found:
                found.add(follower)
                pending.append(follower)
    return found - start
