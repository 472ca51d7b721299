"""The Claude Code runtime: one process for each conversation, driven by claude-agent-sdk.

The SDK lives in an event loop in a thread of its own, so that the process's output is always
read; turns wait for it in theirs.  Modules ``claude_*`` that import the SDK are imported here
only once it is known to be installed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worker import records
from worker.children import Spared, children_of
from worker.config import Config
from worker.errors import Interrupted, TurnError
from worker.log import complain
from worker.runtimes import claude_cli, claude_sandbox, claude_sdk
from worker.runtimes.base import Runtime, TurnContext
from worker.runtimes.claude_identity import StoredIdentity
from worker.runtimes.claude_policy import Policy
from worker.runtimes.claude_usage import AttemptUsage
from worker.runtimes.files import write_file
from worker.trees import remove_tree

if TYPE_CHECKING:
    from worker.runtimes.claude_events import TurnEvents
    from worker.runtimes.claude_session import Session
    from worker.runtimes.claude_turn import RunningTurn

CLOSE_SECONDS = 6.0
STEER_SECONDS = 5.0

T = TypeVar("T")


class ClaudeRuntime(Runtime):
    """Claude Code.

    Args:
        config: the worker's settings.
        environ: the agent's environment.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._agent = config.agent
        self._workdir = config.workspace
        self._persona = config.persona
        self._system_prompt = config.system_prompt
        self._environ = environ
        self._folder = config.base / "claude"
        self._identity = StoredIdentity(self._folder / "session.json")
        self._cli: claude_cli.Cli | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session | None = None
        self._usage: tuple[tuple[str, str], AttemptUsage] | None = None
        self._sandbox: Mapping[str, Any] | None = None

    # --- see Runtime ------------------------------------------------------------------------

    def start(self) -> None:
        """See Runtime."""
        cli_path = self._agent.claude.get("cliPath")
        self._cli = claude_cli.find(cli_path if isinstance(cli_path, str) else "", self._environ)
        claude_cli.check_credential(self._environ)
        claude_cli.check_mode(self._agent, self._environ)
        self._prepare()
        self._loop = asyncio.new_event_loop()
        self._loop.call_soon(_load)
        threading.Thread(target=self._loop.run_forever, name="claude", daemon=True).start()

    def turn(self, prompt: str, context: TurnContext) -> str:
        """See Runtime."""
        context.accept()
        context.scope.spawned()
        return self._call(self._carry_out(prompt, context)).result()

    def steer(self, content: str) -> bool:
        """See Runtime: Claude Code takes it up between two calls to the model."""
        session = self._session
        if session is None:
            return False
        try:
            return self._call(session.steer(content)).result(STEER_SECONDS)
        except Exception as error:
            complain(f"claude: {type(error).__name__}: {error}")
            return False

    def processes(self) -> Sequence[Spared]:
        """See Runtime."""
        session, cli = self._session, self._cli
        pid = session.pid if session is not None else None
        if pid is None or cli is None:
            return []
        program = cli.path.resolve()  # its folder may be everybody's, such as /usr/local/bin
        return [Spared(one, program) for one in (pid, *_companions(pid))]

    def close(self) -> None:
        """See Runtime."""
        session, loop = self._session, self._loop
        if session is not None and loop is not None:
            with contextlib.suppress(Exception):
                self._call(session.close()).result(CLOSE_SECONDS)
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    # --- files ------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the folder, and see whether commands can be confined here."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sandbox = None
        if self._agent.sandbox_mode != "danger-full-access":
            hindrance = claude_sandbox.hindrance(self._environ)
            if hindrance:
                complain(f"claude: commands are not confined by the system: {hindrance}")
            else:
                sandbox = claude_sandbox.settings(self._agent, self._workdir, self._folder)
        self._sandbox = sandbox

    def _write_files(self) -> None:
        """Write what the program reads at its start, whatever its commands made of it."""
        self._settings.write_text(claude_cli.settings_text(self._sandbox))
        self._instructions.write_text(_instructions(self._persona.instructions))
        remove_tree(self._config_folder / "settings.json")
        skills = self._config_folder / "skills"
        remove_tree(skills)
        for path, text in self._persona.skills.items():
            write_file(skills, path, text)

    @property
    def _config_folder(self) -> Path:
        """What Claude Code takes for the user's own: only there does it look for settings."""
        return self._folder / "config"

    @property
    def _settings(self) -> Path:
        return self._folder / "settings-of-worker.json"

    @property
    def _instructions(self) -> Path:
        return self._folder / "instructions.md"

    # --- a turn, in the loop's thread ---------------------------------------------------------

    async def _carry_out(self, prompt: str, context: TurnContext) -> str:
        from worker.runtimes.claude_events import TurnEvents
        from worker.runtimes.claude_turn import RunningTurn

        session = await self._ready(context)
        if session.new and not context.fresh and context.kind != "system" and self._system_prompt:
            prompt = f"{self._system_prompt}\n\n{prompt}"  # it has not heard it yet
        session.new = False
        usage = self._usage_of(context, session.identity)
        events = TurnEvents(context, usage, claude_cli.retries(context.env))
        turn = RunningTurn(context, events, self._policy(), session.remembered)
        _watch(context, turn.wake)
        try:
            return await _run(session, turn, events, prompt, context)
        finally:
            events.abandon()
            turn.close()
            session.leave()

    async def _ready(self, context: TurnContext) -> Session:
        """The process for a turn, started where need be.

        Raises: Interrupted; TurnError.
        """
        stopped = asyncio.Event()
        _watch(context, lambda: stopped.set() if context.scope.interrupted else None)
        starting = asyncio.ensure_future(self._session_for(context))
        stopping = asyncio.ensure_future(stopped.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            context.scope.check()
        return await starting

    async def _session_for(self, context: TurnContext) -> Session:
        from worker.runtimes.claude_session import ConversationGone

        session = self._session
        env = claude_cli.environment(context.env, self._config_folder)
        if session is not None:
            if not context.fresh and session.fits(context.workdir, env):
                return session
            await session.close()
            self._session = None
        if context.fresh:  # nothing resumes what was, and each prompt would leave it lying there
            remove_tree(self._config_folder / "projects")
        identity = "" if context.fresh else self._identity.read()
        if identity:
            try:
                return await self._open(identity, True, env, context)
            except ConversationGone:
                context.emit(records.AGENT_ERROR, {**_LOST, "will_retry": True})
        return await self._open(self._identity.make(), False, env, context)

    async def _open(
        self, identity: str, resume: bool, env: Mapping[str, str], context: TurnContext
    ) -> Session:
        """Start a process.

        Raises: ConversationGone; TurnError.
        """
        from worker.runtimes.claude_session import ConversationGone, Session, StartFailed

        assert self._cli is not None
        self._write_files()
        argv = claude_cli.command_line(
            self._cli,
            self._agent,
            session=identity,
            resume=resume,
            settings=self._settings,
            instructions=self._instructions,
            online=self._policy().online,
        )
        self._session = session = Session(identity, argv, context.workdir, env, new=not resume)
        try:
            await session.open(context.trace)
        except ConversationGone:
            if resume:
                raise
            raise TurnError("infrastructure", "Claude Code began no conversation") from None
        except StartFailed as error:
            raise TurnError("infrastructure", f"Claude Code does not start: {error}") from error
        return session

    # --- small things -----------------------------------------------------------------------

    def _policy(self) -> Policy:
        agent = self._agent
        return Policy(
            approval=agent.approval_policy,
            sandbox=agent.sandbox_mode,
            network=agent.network_access,
            root=self._workdir,
            confined=self._sandbox is not None,
        )

    def _usage_of(self, context: TurnContext, identity: str) -> AttemptUsage:
        """The attempt's, which may ask the agent more than once."""
        key = (context.injection_id, identity)
        if self._usage is None or self._usage[0] != key:
            self._usage = (key, AttemptUsage(identity))
        self._usage[1].begin()
        return self._usage[1]

    def _call(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Have the loop's thread do something."""
        assert self._loop is not None, "start() comes first"
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _load() -> None:
    """Import the SDK, which takes its time, before the first turn needs it."""
    try:
        claude_sdk.load()
        import worker.runtimes.claude_session  # noqa: F401
    except ImportError as error:
        complain(f"claude: {error}")  # the turn will say so


def _companions(pid: int) -> Iterator[int]:
    """What the program starts for itself, such as its sandbox's way to the network.

    They stay in its session; commands get one of their own, and no process can join another's.
    """
    for child in children_of(pid):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(child) == pid:
                yield child


_LOST = {
    "class": "session",
    "message": "the conversation so far could not be resumed: it ended before anything of it was "
    "stored; a new one is begun",
}


async def _run(
    session: Session, turn: RunningTurn, events: TurnEvents, prompt: str, context: TurnContext
) -> str:
    """Carry out a prompt; the final answer.

    Raises: Interrupted; TurnError.
    """
    from claude_agent_sdk import ClaudeSDKError

    from worker.runtimes.claude_turn import REFUSED

    try:
        await session.send(prompt, turn, context.trace)
        stopping = asyncio.ensure_future(turn.stopped.wait())
        waited: set[asyncio.Future[Any]] = {turn.finished, stopping}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not turn.finished.done():
            await session.interrupt(turn)
        result = await turn.finished
    except ClaudeSDKError as error:
        context.scope.check()
        if events.give_up is not None:
            raise events.give_up from None
        raise TurnError("infrastructure", f"the agent's process ended: {error}") from error
    context.scope.check()
    if events.give_up is not None:
        raise events.give_up
    if turn.cancelled:
        raise Interrupted(REFUSED)
    return events.answer(result)


def _watch(context: TurnContext, look: Callable[[], Any]) -> None:
    """Have the loop look at a turn's scope whenever it changes."""
    loop = asyncio.get_running_loop()

    def nudge() -> None:
        loop.call_soon_threadsafe(look)

    context.scope.watch(nudge)


def _instructions(persona: str) -> str:
    """What is added to Claude Code's own system prompt."""
    return "\n\n".join(part for part in (persona.strip(), _READ_FIRST) if part) + "\n"


_READ_FIRST = (
    "If the repository has a CLAUDE.md or an AGENTS.md at its root, read it before you begin. "
    "Nobody answers questions in this session: decide, and say in your final answer what you "
    "decided."
)
