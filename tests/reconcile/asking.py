"""An agent that asks, and people who decide."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.reconcile.questions import approval_name
from tests.lab import prompt, swarm

COMMAND = "rm -rf build"


class Agent:
    """The only worker's agent: asks, waits for its answer, and ends its turn."""

    def __init__(self, rig: Any, *questions: dict[str, Any], ends: bool = True) -> None:
        self.rig = rig
        self.questions = questions or ({"command": COMMAND},)
        self.ends = ends
        self.job: Any = None
        self.injection = ""
        rig.provider.work = self.work

    async def work(self, job: Any, record: dict[str, Any]) -> None:
        self.job, self.injection = job, record["injection_id"]
        for number, question in enumerate(self.questions, 1):
            self.ask(number, question)
            payload = await self.answered(number)
            self.resolve(number, payload["decision"])
        if self.ends:
            job.finish(self.injection, {"status": "completed", "answer": "done"})
        else:
            await asyncio.sleep(100_000)

    def request(self, number: int = 1) -> str:
        return f"{self.injection}/{number}"

    def ask(self, number: int, question: dict[str, Any]) -> None:
        data = {"request_id": self.request(number), "cwd": "/w", **question}
        self.job.emit("exec_approval_required", data, self.injection)

    def resolve(self, number: int, decision: str) -> None:
        data = {"request_id": self.request(number), "decision": decision}
        self.job.emit("exec_approval_resolved", data, self.injection)

    async def answered(self, number: int) -> dict[str, Any]:
        while not (found := self.answers(number)):  # noqa: ASYNC110 (time is virtual)
            await asyncio.sleep(0.01)
        return found[0]

    def answers(self, number: int = 1) -> list[dict[str, Any]]:
        payloads = [r["payload"] for r in self.job.inbox if r["type"] == "control"]
        wanted = self.request(number)
        return [p for p in payloads if p["action"] == "approval" and p["request_id"] == wanted]

    def name(self, number: int = 1, attempt: int = 1) -> str:
        return approval_name("p", attempt, self.request(number))


async def asking(rig: Any, agent: Agent, *, task: dict[str, Any] | None = None, **spec: Any) -> str:
    """A prompt whose agent asks; the name of its first question."""
    rig.apply(swarm(replicas=1, **spec), prompt("p", **(task or {})))
    await rig.until(lambda: rig.store.list("Approval"), "the question")
    return agent.name()


def decide(rig: Any, name: str, value: str, **more: str) -> None:
    rig.patch("Approval", name, decision={"value": value, **more})


async def settled(rig: Any, name: str) -> dict[str, Any]:
    return await rig.until(
        lambda: (s := rig.status("Approval", name)).get("delivered") or (s.get("expired") and s),
        f"{name} to be over",
    ) and rig.status("Approval", name)
