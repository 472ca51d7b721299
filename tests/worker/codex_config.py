"""A worker's configuration for Codex."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.config import AgentConfig, Config


def config(base: Path, **agent: Any) -> Config:
    return Config(
        base=base,
        job="j",
        node="n",
        index=0,
        runtime="codex",
        workspace=base / "repo",
        stores=base.parent / "stores",
        agent=AgentConfig(**agent),
    )
