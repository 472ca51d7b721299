"""A conversation with Claude Code: its process, and who listens to it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    HookMatcher,
    PermissionResultAllow,
    PermissionResultDeny,
    ResultMessage,
    ToolPermissionContext,
)

from worker.log import complain
from worker.runtimes.claude_policy import ALLOW
from worker.runtimes.claude_process import CliProcess
from worker.runtimes.claude_questions import Remembered
from worker.runtimes.claude_turn import RunningTurn

INTERRUPT_SECONDS = 4.0
"""How long an interrupted turn may take to end before its process is killed."""

_UNKNOWN = "no conversation found"

logging.getLogger("claude_agent_sdk").setLevel(logging.CRITICAL)  # what it logs it raises as well


class ConversationGone(Exception):
    """The conversation was never stored, and cannot be resumed."""


class StartFailed(Exception):
    """The program could not be started; the text says how that shows."""


class Session:
    """One process and its conversation; belongs to the event loop's thread.

    Args:
        identity: the conversation's id.
        argv: the program and its arguments.
        cwd: where it works.
        env: its whole environment.
        new: nothing was said yet.
    """

    def __init__(
        self, identity: str, argv: Sequence[str], cwd: Path, env: Mapping[str, str], *, new: bool
    ) -> None:
        self.identity = identity
        self.new = new
        self.remembered = Remembered(cwd)
        self._place = _place(cwd)
        self._cwd = cwd
        self._env = env
        self._turn: RunningTurn | None = None
        self._trace_of_turn: Any = None
        self._process = CliProcess(argv, cwd, env, self._trace, self._answered)
        hooks = [HookMatcher(hooks=[self._before_tool], on_failure="block")]
        options = ClaudeAgentOptions(
            can_use_tool=self._permit,
            hooks={"PreToolUse": hooks},
            verbatim_prompts=True,
        )
        self._client = ClaudeSDKClient(options, transport=self._process)
        self._pump: asyncio.Task[None] | None = None

    async def open(self, trace: Any) -> None:
        """Start the process and shake hands.

        Args:
            trace: takes the raw traffic until a turn begins.

        Raises: ConversationGone; StartFailed.
        """
        self._trace_of_turn = trace
        try:
            await self._client.connect()
        except asyncio.CancelledError:
            self._process.kill()
            raise
        except Exception as error:  # the SDK raises bare Exceptions, too
            said, told = self._process.complaint, str(error)
            text = told if said in told else f"{told}\n{said}"
            await self._process.close()
            if _UNKNOWN in text.lower():
                raise ConversationGone(text) from error
            raise StartFailed(text) from error
        self._pump = asyncio.ensure_future(self._listen())

    @property
    def pid(self) -> int | None:
        """The process's id as long as it lives."""
        return self._process.pid

    def fits(self, cwd: Path, env: Mapping[str, str]) -> bool:
        """Whether the process lives, and a turn with this folder and environment can use it."""
        alive = self.pid is not None and self._pump is not None and not self._pump.done()
        return alive and self._env == env and self._place == _place(cwd)

    async def send(self, prompt: str, turn: RunningTurn, trace: Any) -> None:
        """Begin a turn.

        Raises: ClaudeSDKError if the process takes nothing.
        """
        self._turn, self._trace_of_turn = turn, trace
        await self._say(prompt, turn)

    async def steer(self, content: str) -> bool:
        """Add to the running turn; whether one runs.

        Raises: ClaudeSDKError if the process takes nothing.
        """
        if self._turn is None or self._turn.finished.done():
            return False
        await self._say(content, self._turn)
        return True

    async def _say(self, text: str, turn: RunningTurn) -> None:
        name = str(uuid.uuid4())
        turn.said(name)

        async def messages() -> AsyncIterator[dict[str, Any]]:
            content = {"role": "user", "content": text}
            yield {"type": "user", "message": content, "parent_tool_use_id": None, "uuid": name}

        await self._client.query(messages(), session_id=self.identity)

    async def interrupt(self, turn: RunningTurn) -> None:
        """End the turn at once; where Claude Code does not, its process is ended."""
        try:
            await asyncio.wait_for(self._interrupted(turn), INTERRUPT_SECONDS)
        except Exception as error:
            complain(f"claude: the turn did not end when asked ({error}); its process is killed")
            self._process.kill()

    async def _interrupted(self, turn: RunningTurn) -> None:
        await self._client.interrupt()
        await asyncio.wait([turn.finished])

    def leave(self) -> None:
        """The turn is over, and nothing may be told of it any more."""
        self._turn = self._trace_of_turn = None

    async def close(self) -> None:
        """End the process."""
        if self._pump is not None:
            self._pump.cancel()
        try:
            await self._client.disconnect()
        except Exception as error:
            complain(f"claude: {error}")
        await self._process.close()

    # --- what the process says and asks -----------------------------------------------------

    async def _listen(self) -> None:
        error: Exception = ClaudeSDKError("Claude Code's process has ended")
        try:
            async for message in self._client.receive_messages():
                if self._turn is None:
                    continue
                if isinstance(message, ResultMessage):
                    self._turn.result(message, self._process.used.get(message.uuid or "", {}))
                else:
                    self._turn.take(message)
        except Exception as failed:
            error = failed
        if self._turn is not None:
            self._turn.lost(error)

    async def _permit(
        self, tool: str, arguments: dict[str, Any], about: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        if self._turn is None:
            return PermissionResultDeny(message="No turn is running.")
        return await self._turn.permit(tool, arguments, about)

    async def _before_tool(self, data: Any, call: str | None, context: Any) -> Any:
        """The PreToolUse hook: holds in every permission mode, also where nothing is asked."""
        if self._turn is None:
            return _decided("deny", "No turn is running.")
        tool, arguments = str(data.get("tool_name")), data.get("tool_input")
        found = arguments if isinstance(arguments, dict) else {}
        verdict = self._turn.judge(tool, found, call or "")
        if verdict is None or (verdict.action == ALLOW and data.get("permission_mode") == "plan"):
            return {}
        return _decided(verdict.action, f"Not allowed: {verdict.reason}." if verdict.reason else "")

    def _answered(self, call: str) -> None:
        if self._turn is not None:
            self._turn.answered(call)

    def _trace(self, direction: str, text: str) -> None:
        if self._trace_of_turn is not None:
            self._trace_of_turn(direction, text)


def _decided(action: str, reason: str) -> dict[str, Any]:
    decision = {"hookEventName": "PreToolUse", "permissionDecision": action}
    return {"hookSpecificOutput": {**decision, "permissionDecisionReason": reason}}


def _place(cwd: Path) -> tuple[int, int] | None:
    """Which folder a path means now: the checkout may be made anew between turns."""
    try:
        found = cwd.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)
