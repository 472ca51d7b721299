"""A real worker with the real Codex CLI, whose model is scripted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.agents import installed
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer
from tests.worker.harness import Worker

MODEL = "gpt-5.5"
"""Of the models that Codex knows, one that is given its tools directly."""
KEY = "sk-scripted-0123456789abcdef"


def provider(server: OpenAIServer, **more: Any) -> str:
    """Codex's configuration for a scripted provider, without retries."""
    table = {
        "name": "scripted",
        "base_url": server.base_url,
        "wire_api": "responses",
        "env_key": "SCRIPTED_KEY",
        "request_max_retries": 0,
        "stream_max_retries": 0,
        **more,
    }
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
    return f'model_provider = "scripted"\n\n[model_providers.scripted]\n{lines}'


class CodexWorker(Worker):
    """A worker folder, and the process in it.

    Args:
        base: the folder.
        server: the model.
        network: what other hosts are asked through.
        agent: overrides of the ``agent`` block; ``system_prompt`` goes beside it.
    """

    def __init__(self, base: Path, server: OpenAIServer, network: NoNetwork, **agent: Any) -> None:
        self.server = server
        more = {"systemPrompt": agent.pop("system_prompt", "")}
        codex = {
            "path": str(installed.codex()),
            "inheritLogin": False,
            "config": provider(server),
            **agent.pop("codex", {}),
        }
        block = {"model": MODEL, "sandboxMode": "danger-full-access", **agent, "codex": codex}
        super().__init__(base, runtime="codex", agent=block, **more)
        home = base.parent / "home"
        home.mkdir(exist_ok=True)
        self.env = {**self.env, **network.env, "HOME": str(home)}
        self.secrets = {"SCRIPTED_KEY": KEY}

    def spawn(self) -> Any:
        """Write the ``env`` file, which the worker takes, and start."""
        path = self.base / "env"
        path.write_text(json.dumps(self.secrets))
        path.chmod(0o600)
        return super().spawn()

    def texts(self, event: str, injection: str) -> str:
        """All that was said in a turn by one kind of event."""
        return "".join(record["data"]["text"] for record in self.events(event, injection))

    @property
    def agent_pid(self) -> int:
        """The Codex process."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = [int(pid) for path in children for pid in path.read_text().split()]
        named = [pid for pid in found if "codex" in Path(f"/proc/{pid}/comm").read_text()]
        assert named, found
        return named[0]
