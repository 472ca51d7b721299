"""Lines of an agent's final answer that ask for a prompt to another swarm, and which may pass.

A line is ``/swarm[reviewers]/idle please look at this``; instead of ``idle`` also ``all``, an
index or ranges.  Lines inside code fences are quotations, not requests.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from controller.domain import blocks
from controller.resources.names import TargetError, is_label, parse_workers

MAX_ROUTES = 20
"""Requests of one answer that are looked at."""
MAX_PROMPT = 16_384
"""Characters of one routed prompt."""
MAX_SWARM_NAME = 50

_LINE = re.compile(r"/swarm\[([^\]\n]{1,200})\]/(\S{1,256})(?:[ \t]+(\S.*))?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


@dataclass(frozen=True, slots=True)
class Route:
    """One request, as the agent wrote it; not yet allowed."""

    swarm: str
    workers: str
    prompt: str
    line: int
    """Counts from 1 in the answer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that does not pass, and why."""

    route: Route
    message: str


def parse_routes(answer: str) -> list[Route]:
    """The requests in a final answer, in order; at most ``MAX_ROUTES``."""
    found: list[Route] = []
    for number, line in _outside_fences(answer):
        match = _LINE.fullmatch(line.strip())
        if match:
            swarm, workers, prompt = match.group(1), match.group(2), match.group(3) or ""
            found.append(Route(swarm, workers, blocks.clean(prompt.strip()), number))
            if len(found) == MAX_ROUTES:
                break
    return found


def _outside_fences(text: str) -> Iterator[tuple[int, str]]:
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        match = _FENCE.fullmatch(line.rstrip())
        if not fence:
            if match:
                fence = match.group(1)
            else:
                yield number, line
        elif match and match.group(1).startswith(fence) and not match.group(2).strip():
            fence = ""


def decide(
    routes: Iterable[Route], allow_to: Collection[str], hops: int, max_hops: int
) -> tuple[list[Route], list[Refusal]]:
    """Which requests become Tasks.

    Args:
        allow_to: swarms that the answering swarm may prompt (``routing.allowTo``).
        hops: how many times the prompt that was answered had been routed already (0 for one
            that a person or a project made).
        max_hops: ``routing.maxHops`` of the answering swarm.
    """
    allowed: list[Route] = []
    refused: list[Refusal] = []
    for route in routes:
        problem = _problem(route, allow_to, hops, max_hops)
        if problem:
            refused.append(Refusal(route, problem))
        else:
            allowed.append(route)
    return allowed, refused


def _problem(route: Route, allow_to: Collection[str], hops: int, max_hops: int) -> str:
    if route.swarm not in allow_to:
        named = is_label(route.swarm, MAX_SWARM_NAME)
        swarm = f"swarm {route.swarm}" if named else repr(route.swarm[:80])
        return f"routing.allowTo does not name {swarm}"
    if hops >= max_hops:
        return f"it would be hop {hops + 1}; routing.maxHops is {max_hops}"
    if not route.prompt:
        return "it has no text"
    if len(route.prompt) > MAX_PROMPT:
        return f"its text has {len(route.prompt)} characters; at most {MAX_PROMPT} are allowed"
    try:
        parse_workers(route.workers)
    except TargetError as error:
        return str(error)
    return ""
