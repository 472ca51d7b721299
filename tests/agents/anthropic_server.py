"""A scripted model behind Anthropic's Messages API, streaming (see script.py)."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

from tests.agents import script
from tests.agents.model_server import Cut, ModelServer, Request
from tests.agents.script import Reply

Event = tuple[str, dict[str, Any]]
Block = tuple[dict[str, Any], list[dict[str, Any]]]
"""How a block of an answer begins, and its deltas."""

KEY = "sk-ant-scripted-0123456789abcdef"

_NUMBERS = itertools.count(1)
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class AnthropicServer(ModelServer):
    """``POST <url>/v1/messages``."""

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead Claude Code here."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": KEY}

    def answers(self, request: Request) -> bool:
        return request.path.split("?")[0] == "/v1/messages"

    def reply(self, request: Request) -> Reply:
        replies, done = None, 0
        for message in request.body.get("messages", []):
            found = script.replies_in(_text(message)) if message["role"] == "user" else None
            if found is not None:
                replies, done = found, 0
            elif message["role"] == "assistant":
                done += 1
        return script.reply_at(replies, done)

    def failure(self, status: int, reply: Reply) -> dict[str, Any]:
        kind = reply.get("type", _TYPES.get(status, "api_error"))
        message = reply.get("message", f"scripted failure {status}")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def events(self, request: Request, reply: Reply) -> Iterator[Event]:
        number = next(_NUMBERS)
        counts = {**script.USAGE, "written": 0, **reply.get("usage", {})}
        usage = {
            "input_tokens": counts["input"] - counts["cached"] - counts["written"],
            "cache_read_input_tokens": counts["cached"],
            "cache_creation_input_tokens": counts["written"],
            "output_tokens": 1,
        }
        message = {
            "id": f"msg_{number:024d}", "type": "message", "role": "assistant", "content": [],
            "model": request.body["model"], "stop_reason": None, "stop_sequence": None,
            "usage": usage,
        }  # fmt: skip
        yield _event("message_start", message=message)
        if "error" in reply:
            about = {"type": reply["error"], "message": reply.get("message", "scripted")}
            yield _event("error", error=about)
            return
        for index, (block, deltas) in enumerate(_blocks(reply, number)):
            if block["type"] == "tool_use" and reply.get("hold"):
                self.hold()
            yield _event("content_block_start", index=index, content_block=block)
            for delta in deltas:
                yield _event("content_block_delta", index=index, delta=delta)
                if reply.get("drop"):
                    raise Cut
            yield _event("content_block_stop", index=index)
        calls = any(name in reply for name in ("run", "write", "tool"))
        if reply.get("hold") and not calls:
            self.hold()
        ended: dict[str, Any] = {"output_tokens": counts["output"]}
        ended["output_tokens_details"] = {"thinking_tokens": counts["reasoning"]}
        delta = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=ended)
        yield _event("message_stop")


def _event(kind: str, **data: Any) -> Event:
    return kind, {"type": kind, **data}


def _blocks(reply: Reply, number: int) -> Iterator[Block]:
    if "think" in reply:
        thought = [{"type": "thinking_delta", "thinking": p} for p in script.pieces(reply["think"])]
        signed = {"type": "signature_delta", "signature": "signed"}
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*thought, signed]
    if "say" in reply:
        text = script.said(reply)
        yield (
            {"type": "text", "text": ""},
            [{"type": "text_delta", "text": piece} for piece in script.pieces(text)],
        )
    call = _call(reply)
    if call is not None:
        name, arguments = call
        block = {"type": "tool_use", "id": f"toolu_{number:024d}", "name": name, "input": {}}
        yield block, [{"type": "input_json_delta", "partial_json": json.dumps(arguments)}]


def _call(reply: Reply) -> tuple[str, dict[str, Any]] | None:
    if "run" in reply:
        arguments = {"command": reply["run"], "description": reply.get("escalate") or "run it"}
        return "Bash", {**arguments, "dangerouslyDisableSandbox": "escalate" in reply}
    if "write" in reply:
        wanted = reply["write"]
        return "Write", {"file_path": wanted["path"], "content": wanted["content"]}
    if "tool" in reply:
        return reply["tool"]["name"], reply["tool"]["arguments"]
    return None


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content)


if __name__ == "__main__":  # for a network namespace of its own: prints where it listens
    with AnthropicServer() as server:
        print(server.url, flush=True)
        sys.stdin.read()
