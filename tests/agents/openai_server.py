"""A scripted model behind OpenAI's Responses API, streaming (see script.py)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tests.agents import script
from tests.agents.model_server import Cut, ModelServer, Request
from tests.agents.script import Reply

Event = tuple[str, dict[str, Any]]

_NUMBERS = itertools.count(1)


class OpenAIServer(ModelServer):
    """``POST <url>/v1/responses``."""

    @property
    def base_url(self) -> str:
        """What a provider's ``base_url`` is."""
        return f"{self.url}/v1"

    def answers(self, request: Request) -> bool:
        return request.path.split("?")[0] == "/v1/responses"

    def reply(self, request: Request) -> Reply:
        replies, done = None, 0
        for item in request.body.get("input", []):
            if item.get("role") == "user":
                found = script.replies_in(_text(item))
                if found is not None:
                    replies, done = found, 0
            elif str(item.get("type")).endswith("_output"):
                done += 1
        return script.reply_at(replies, done)

    def failure(self, status: int, reply: Reply) -> dict[str, Any]:
        code = reply.get("code", {429: "rate_limit_exceeded", 401: "invalid_api_key"}.get(status))
        message = reply.get("message", f"scripted failure {status}")
        about = {"message": message, "type": reply.get("type", code), "code": code}
        return {"error": {**about, **reply.get("about", {})}}

    def events(self, request: Request, reply: Reply) -> Iterator[Event]:
        response = f"resp_{next(_NUMBERS)}"
        yield _event("response.created", response={"id": response})
        if "error" in reply:
            error = {"code": reply["error"], "message": reply.get("message", "scripted")}
            yield _event("response.failed", response={"id": response, "error": error})
            return
        if "think" in reply:
            yield from _thinks(reply["think"])
        if "say" in reply:
            yield from _says(script.said(reply), cut=bool(reply.get("drop")))
        if reply.get("drop"):
            raise Cut
        if reply.get("hold"):
            self.hold()
        for call in _calls(reply):
            yield _event("response.output_item.done", item=call)
        yield _event("response.completed", response={"id": response, "usage": _usage(reply)})


def _event(kind: str, **data: Any) -> Event:
    return kind, {"type": kind, **data}


def _thinks(text: str) -> Iterator[Event]:
    item: dict[str, Any] = {"type": "reasoning", "id": f"rs_{next(_NUMBERS)}", "summary": []}
    yield _event("response.output_item.added", item=item)
    for piece in script.pieces(text):
        yield _event(
            "response.reasoning_summary_text.delta",
            item_id=item["id"],
            delta=piece,
            summary_index=0,
        )
    item["summary"] = [{"type": "summary_text", "text": text}]
    yield _event("response.output_item.done", item=item)


def _says(text: str, *, cut: bool) -> Iterator[Event]:
    item: dict[str, Any] = {"type": "message", "role": "assistant", "id": f"msg_{next(_NUMBERS)}"}
    yield _event("response.output_item.added", item={**item, "content": []})
    for piece in script.pieces(text):
        yield _event("response.output_text.delta", item_id=item["id"], delta=piece)
        if cut:
            return
    content = [{"type": "output_text", "text": text}]
    yield _event("response.output_item.done", item={**item, "content": content})


def _calls(reply: Reply) -> Iterator[dict[str, Any]]:
    if "run" in reply:
        arguments: dict[str, Any] = {"cmd": reply["run"], "yield_time_ms": 10_000}
        if "escalate" in reply:
            arguments["sandbox_permissions"] = "require_escalated"
            arguments["justification"] = reply["escalate"]
        yield {
            "type": "function_call",
            "call_id": f"call_{next(_NUMBERS)}",
            "name": "exec_command",
            "arguments": json.dumps(arguments),
        }
    if "write" in reply:
        wanted = reply["write"]
        lines = "".join(f"+{line}\n" for line in wanted["content"].splitlines())
        patch = f"*** Begin Patch\n*** Add File: {wanted['path']}\n{lines}*** End Patch\n"
        yield {
            "type": "custom_tool_call",
            "call_id": f"call_{next(_NUMBERS)}",
            "name": "apply_patch",
            "input": patch,
        }


def _usage(reply: Reply) -> dict[str, Any]:
    counts = {**script.USAGE, **reply.get("usage", {})}
    return {
        "input_tokens": counts["input"],
        "input_tokens_details": {"cached_tokens": counts["cached"]},
        "output_tokens": counts["output"],
        "output_tokens_details": {"reasoning_tokens": counts["reasoning"]},
        "total_tokens": counts["input"] + counts["output"],
    }


def _text(item: dict[str, Any]) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or [])
