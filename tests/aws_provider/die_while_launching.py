"""A controller that dies at a chosen point of a launch: ``before|after|returned`` and JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from providers.aws_nodes import Node, Nodes
from providers.base import InProgress
from tests.aws_provider.harness import provider
from tests.providers.harness import die, request_of

_start = Nodes.start


async def dying_start(
    self: Nodes, node: Node, root: str, volume: str, message: Mapping[str, Any]
) -> dict[str, Any]:
    """Kills this process right before or right after workers are begun."""
    if sys.argv[1] == "before":
        die()
    told = await _start(self, node, root, volume, message)
    if sys.argv[1] == "after":
        die()
    return told


async def main() -> None:
    """Launch, and never return."""
    Nodes.start = dying_start  # type: ignore[method-assign]
    wanted = request_of(sys.argv[2])
    launching = provider()
    launching.start(lambda batch: None)
    while True:
        try:
            await launching.launch([wanted])
            die()
        except InProgress:
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
