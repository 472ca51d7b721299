"""A program in the place of the Codex CLI that misbehaves as its prompt says.

It speaks as much of the app-server's protocol as the worker needs.  The prompt is the name of one
of the functions at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

THREAD, TURN = "thread-1", "turn-1"
METHODS = (
    "item/started", "item/completed", "item/agentMessage/delta", "error", "x/y",
    "thread/tokenUsage/updated", "turn/completed", "serverRequest/resolved",
    "account/rateLimits/updated", "model/rerouted", "item/reasoning/summaryPartAdded",
)  # fmt: skip
PARAMS: tuple[Any, ...] = (
    None, [], 3, "x", {}, {"item": 3}, {"item": {"type": "fileChange", "changes": [3, {}]}},
    {"turn": []}, {"tokenUsage": []}, {"delta": {}},
)  # fmt: skip


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def tell(method: str, **params: Any) -> None:
    send(method=method, params={"threadId": THREAD, "turnId": TURN, **params})


def say(text: str) -> None:
    item = {"type": "agentMessage", "id": "m", "text": text}
    tell("item/completed", item=item)


def complete(status: str = "completed", **more: Any) -> None:
    tell("turn/completed", turn={"id": TURN, "status": status, "error": None, **more})


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    return message


def serve() -> None:
    while True:
        message = receive()
        method, number = message.get("method"), message.get("id")
        if method == "turn/start":
            verb = message["params"]["input"][-1]["text"]
            if verb != "silent":
                send(id=number, result={"turn": {"id": TURN}})
            VERBS[verb]()
        elif method in ("thread/start", "thread/resume"):
            send(id=number, result={"thread": {"id": THREAD}, "model": "fake"})
        elif method == "initialize":
            send(id=number, result={"userAgent": "codeswarm/0.169.0"})
        elif number is not None and method is not None:
            send(id=number, result={})


def fine() -> None:
    say("fine")
    complete()


def stubborn() -> None:
    """Takes no notice of an interruption, and has a command that runs."""
    child = subprocess.Popen(["sleep", "300"])
    with open(os.environ["FAKE_NOTES"], "w") as file:
        file.write(str(child.pid))
    say("I go on")
    while True:
        receive()


def silent() -> None:
    """Does not answer to ``turn/start``."""
    time.sleep(300)


def flood() -> None:
    """Talks without an end."""
    tell("item/started", item={"type": "agentMessage", "id": "m", "text": ""})
    while True:
        tell("item/agentMessage/delta", itemId="m", delta="blah " * 2000)


def nonsense() -> None:
    """Says everything that makes no sense, and then ends."""
    for method in METHODS:
        for params in PARAMS:
            send(method=method, params=params)
            if isinstance(params, dict):
                tell(method, **params)
    for kind in ("commandExecution", "fileChange", "mcpToolCall", "webSearch", "reasoning"):
        for done in ("item/started", "item/completed"):
            tell(done, item={"type": kind, "id": None, "command": 3, "changes": {"a": 1}})
    print("not json")
    fine()


def asks() -> None:
    """Asks what nobody is asked, and passes on the answers."""
    found = []
    for number, method in enumerate(
        ("item/permissions/requestApproval", "item/tool/requestUserInput", "item/tool/call",
         "mcpServer/elicitation/request", "execCommandApproval", "some/thing",
         "item/commandExecution/requestApproval", "item/fileChange/requestApproval")
    ):  # fmt: skip
        send(id=100 + number, method=method, params={"threadId": THREAD, "command": "rm x"})
        answer = receive()
        found.append(answer.get("result", answer.get("error", {}).get("code")))
    say(json.dumps(found))
    complete()


def interrupts_itself() -> None:
    complete("interrupted")


def dies() -> None:
    say("about to die")
    os.kill(os.getpid(), signal.SIGKILL)


VERBS = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__
}

if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print("codex-cli 0.169.0")
    else:
        serve()
