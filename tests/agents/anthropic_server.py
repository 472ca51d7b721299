"""Anthropic's Messages API with a scripted model behind it, on loopback (see script.py)."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

from tests.agents.script import Failures, Step, find, pieces

HANG_SECONDS = 60.0


class AnthropicServer:
    """Answers until it is closed; a context manager."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies of all calls, with ``headers`` (lower case) beside."""
        self.failures = Failures()
        self.numbers = count(1)
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.script = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead Claude Code here."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": "sk-ant-scripted-0123456789"}

    def __enter__(self) -> AnthropicServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        script: AnthropicServer = self.server.script  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)))
        if not self.path.startswith("/v1/messages"):
            self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": ""}})
            return
        script.requests.append({**body, "headers": {k.lower(): v for k, v in self.headers.items()}})
        step, key = find(_texts(body))
        failure = script.failures.due(step, key)
        if failure is not None and "status" in failure:
            self._fail(failure)
            return
        self._stream(_events(step, body, next(script.numbers)), step, failure is not None)

    def _fail(self, failure: Mapping[str, Any]) -> None:
        error = {
            "type": failure.get("type", "api_error"),
            "message": failure.get("message", "scripted"),
        }
        headers = {}
        if failure.get("retry_after") is not None:
            headers["retry-after"] = str(failure["retry_after"])
        self._json(failure["status"], {"type": "error", "error": error}, headers)

    def _json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[dict[str, Any]], step: Step, drop: bool) -> None:
        script: AnthropicServer = self.server.script  # type: ignore[attr-defined]
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for event in events:
                data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                self.wfile.write(data.encode())
                self.wfile.flush()
                if event["type"] == "content_block_delta":
                    if drop:
                        return
                    time.sleep(step.data.get("pause", 0))
                if event["type"] == "content_block_stop" and step.hang:
                    script.closing.wait(HANG_SECONDS)
                    return
        except OSError:
            pass  # the client went away, as it may

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _texts(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The conversation as ``script.find`` takes it."""
    found = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "\n".join(block.get("text", "") for block in blocks)
        found.append(("model" if message["role"] == "assistant" else "user", text))
    return found


def _events(step: Step, body: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The stream of one answer."""
    tokens = step.tokens
    usage = {
        "input_tokens": tokens["input"] - tokens["cached"] - tokens["written"],
        "cache_read_input_tokens": tokens["cached"],
        "cache_creation_input_tokens": tokens["written"],
        "output_tokens": 1,
    }
    message = {
        "id": f"msg_{number:024d}", "type": "message", "role": "assistant", "content": [],
        "model": body["model"], "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    yield {"type": "message_start", "message": message}
    for index, (block, deltas) in enumerate(_blocks(step, body, number)):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending: dict[str, Any] = {"output_tokens": tokens["output"]}
    if tokens["reasoning"]:
        ending["output_tokens_details"] = {"thinking_tokens": tokens["reasoning"]}
    reason = "tool_use" if step.run or step.write or step.tool else "end_turn"
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": ending}
    yield {"type": "message_stop"}


def _blocks(
    step: Step, body: Mapping[str, Any], number: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    if step.think:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(step.think)]
        deltas.append({"type": "signature_delta", "signature": "signed"})
        yield {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if step.say:
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(step.say)]
        yield {"type": "text", "text": ""}, deltas
    call = _call(step)
    if call is not None:
        name, arguments = call
        block = {"type": "tool_use", "id": f"toolu_{number:024d}", "name": name, "input": {}}
        yield block, [{"type": "input_json_delta", "partial_json": json.dumps(arguments)}]


def _call(step: Step) -> tuple[str, dict[str, Any]] | None:
    if step.run:
        arguments = {"command": step.run, "description": step.why or "run it"}
        if step.escalate:
            arguments["dangerouslyDisableSandbox"] = True
        return "Bash", arguments
    if step.write:
        return "Write", {"file_path": step.write["path"], "content": step.write["content"]}
    if step.tool:
        return step.tool["name"], step.tool["arguments"]
    return None


if __name__ == "__main__":  # for a network namespace of its own: prints where it listens
    with AnthropicServer() as server:
        print(server.url, flush=True)
        sys.stdin.read()
