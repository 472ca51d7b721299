"""Routing: lines of a final answer that ask for a prompt to another swarm become Tasks."""

from __future__ import annotations

import hashlib
from typing import Any

from controller.domain.routing import Route, decide, parse_routes
from controller.reconcile.context import Context, sibling
from controller.reconcile.infos import TaskInfo
from controller.store.base import AlreadyExists, Resource

DEFAULT_HOPS = 3


class Router:
    """Makes the Tasks that an answer asks for, within what the answering swarm may do."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def route(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], answer: str
    ) -> None:
        """Make each allowed request into a Task; names are derived, so a repetition is one."""
        routes = parse_routes(answer)
        swarm = self._ctx.store.get(sibling(obj, "Swarm", attempt["swarm"])) if routes else None
        if swarm is None:
            return
        routing = swarm["spec"].get("routing") or {}
        hops = int(obj["spec"].get("hops", 0))
        limit = int(routing.get("maxHops", DEFAULT_HOPS))
        allowed, refused = decide(routes, routing.get("allowTo") or (), hops, limit)
        for refusal in refused:
            text = f"line {refusal.route.line} of the answer: {refusal.message}"
            self._ctx.event(obj, "RouteRefused", text, warning=True)
        for route in allowed:
            await self._create(obj, info, attempt, route, hops)

    async def _create(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], route: Route, hops: int
    ) -> None:
        identity = f"{info.uid}.{attempt['number']}.{route.line}"
        name = f"routed-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        workers: str | int = int(route.workers) if route.workers.isdigit() else route.workers
        try:
            await self._ctx.create(
                {
                    "apiVersion": obj["apiVersion"],
                    "kind": "Task",
                    "metadata": {
                        "name": name,
                        "namespace": info.key.namespace,
                        "annotations": {"codeswarm.dev/routed-from": info.key.name},
                    },
                    "spec": {
                        "target": {"swarm": route.swarm, "workers": workers},
                        "prompt": route.prompt,
                        "hops": hops + 1,
                        "priority": 0,
                        "revision": 1,
                        "whenBusy": "queue",
                        "suspend": False,
                        "cancel": False,
                    },
                }
            )
        except AlreadyExists:
            return
        self._ctx.event(obj, "Routed", f"task {name} asks swarm {route.swarm}")
