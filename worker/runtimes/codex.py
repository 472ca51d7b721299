"""The Codex runtime: the Codex CLI as ``codex app-server``, one process for a worker's life.

The conversation is kept from prompt to prompt, and resumed after a crash of the process or of the
worker.  Where that is impossible, a new one is begun, and the transcript says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker import records
from worker.children import Spared
from worker.config import Config
from worker.errors import RuntimeUnusable, TurnError
from worker.log import complain
from worker.runtimes import codex_program as programs
from worker.runtimes import codex_questions as questions
from worker.runtimes.base import Runtime, TurnContext
from worker.runtimes.codex_client import (
    NOISE,
    AppServer,
    Message,
    RequestRefused,
    ServerGone,
    ServerSilent,
)
from worker.runtimes.codex_errors import turn_error
from worker.runtimes.codex_events import Narrator
from worker.runtimes.codex_home import HOME_VARIABLE, CodexHome
from worker.runtimes.codex_repository import instructions_of
from worker.runtimes.codex_sandbox import TEMP_VARIABLE, approval_policy, sandbox_of
from worker.runtimes.codex_threads import ThreadFile
from worker.runtimes.codex_turn import CodexTurn, text_input
from worker.runtimes.codex_usage import Ledger

READY_SECONDS = 20.0
"""How long the process may take until it answers."""
REQUEST_SECONDS = 60.0
"""How long it may take to begin or resume a conversation."""
STEER_SECONDS = 3.0
"""How long it may take to take a text into the running turn."""

_UNWANTED = (
    "turn/diff/updated",
    "item/commandExecution/outputDelta",
    "item/fileChange/outputDelta",
)


class CodexRuntime(Runtime):
    """Drives the Codex CLI.

    Args:
        config: the worker's settings.
        env: the environment of the agent's processes.
    """

    def __init__(self, config: Config, env: Mapping[str, str]) -> None:
        self._config = config
        self._env = {name: value for name, value in env.items() if name != HOME_VARIABLE}
        self._home = CodexHome(config, env)
        self._sandbox = sandbox_of(config, env)
        self._file = ThreadFile(self._home.path / "thread.json")
        self._ledger = Ledger()
        self._server: AppServer | None = None
        self._spared: tuple[Spared, ...] = ()
        self._turn: CodexTurn | None = None
        self._context: TurnContext | None = None
        self._thread = ""
        """The conversation that this process of Codex has loaded."""
        self._model = ""
        self._told = ("", "")
        """The conversation that knows the repository's instructions, and these."""

    # --- the port ---------------------------------------------------------------------------

    def start(self) -> None:
        """See Runtime."""
        try:
            self._launch()
        except OSError as error:
            raise RuntimeUnusable("AgentNotInstalled", f"Codex cannot be run: {error}") from None

    def turn(self, prompt: str, context: TurnContext) -> str:
        """See Runtime."""
        context.accept()
        context.scope.spawned()
        self._context = context
        self._ledger.begin(context.injection_id)
        try:
            try:
                return self._attempt(prompt, context)
            except ServerGone as error:
                complain(f"codex: {error}")  # it had died unseen, and nothing has begun
                context.scope.check()
            try:
                return self._attempt(prompt, context)
            except ServerGone as error:
                raise TurnError("infrastructure", str(error)) from None
        except TurnError as error:
            if error.kind == "auth":
                self.close()  # so that the next turn takes over the user's login anew
            raise
        finally:
            self._turn = None
            self._context = None

    def _attempt(self, prompt: str, context: TurnContext) -> str:
        """Raises: TurnError, Interrupted, OSError; ServerGone if the turn did not begin."""
        server = self._running()
        begun = self._converse(server, context)
        if begun and not context.fresh and context.kind != "system":
            prompt = self._with_system_prompt(prompt)
        return self._carry_out(server, prompt, context)

    def steer(self, content: str) -> bool:
        """See Runtime."""
        turn = self._turn
        return turn is not None and turn.steer(content, STEER_SECONDS)

    def processes(self) -> Sequence[Spared]:
        """See Runtime."""
        server = self._server
        return self._spared if server is not None and server.pid is not None else ()

    def secrets(self) -> Sequence[str]:
        """See Runtime: the tokens of the login."""
        return self._home.tokens()

    def close(self) -> None:
        """See Runtime."""
        if self._server is not None:
            self._server.close()
        self._home.forget_login()

    # --- the process ------------------------------------------------------------------------

    def _running(self) -> AppServer:
        """The process, started anew if it has gone.

        Raises: TurnError.
        """
        server = self._server
        if server is not None and server.alive:
            return server
        if server is not None:
            server.close()
            complain(f"codex: {server.gone}; it is started again")
        try:
            return self._launch()
        except RuntimeUnusable as error:
            raise TurnError("infrastructure", error.message) from None

    def _launch(self) -> AppServer:
        """Start the process and wait until it answers.

        Raises: RuntimeUnusable, OSError.
        """
        program = programs.find_program(self._config, self._env)
        self._home.write()
        self._thread, self._told = "", ("", "")
        env = {**self._env, HOME_VARIABLE: str(self._home.path)}
        if self._sandbox.temp is not None:
            self._sandbox.temp.mkdir(mode=0o700, exist_ok=True)
            env[TEMP_VARIABLE] = str(self._sandbox.temp)
        server = AppServer(self._receive, self._traffic, self._ended)
        server.start([str(program.binary), "app-server"], self._config.base, env)
        pid = server.pid
        self._spared = (Spared(pid, program.binary),) if pid is not None else ()
        self._server = server
        self._greet(server, program, env)
        pid = server.pid
        if pid is not None:
            self._spared = (program.spared(pid),)
        return server

    def _greet(self, server: AppServer, program: programs.Program, env: Mapping[str, str]) -> None:
        about = {"name": "codeswarm", "title": "Codeswarm", "version": "0.1.0"}
        capabilities = {"experimentalApi": False, "optOutNotificationMethods": list(_UNWANTED)}
        params = {"clientInfo": about, "capabilities": capabilities}
        try:
            found = server.request("initialize", params, READY_SECONDS)
        except (ServerGone, ServerSilent, RequestRefused) as error:
            server.close(timeout=0.0)
            if not isinstance(error, ServerSilent):
                programs.check_version(program.version(env))
            raise _unusable(server, error) from None
        agent = found.get("userAgent") if isinstance(found, dict) else ""
        server.notify("initialized")
        try:
            programs.check_version(str(agent).partition("/")[2])
            self._check_config(server)
        except RuntimeUnusable:
            server.close(timeout=0.0)
            raise

    def _check_config(self, server: AppServer) -> None:
        """Codex goes on with its defaults if it cannot use the configuration; we do not."""
        try:
            server.request("config/read", {"includeLayers": False}, READY_SECONDS)
        except RequestRefused as error:
            raise RuntimeUnusable(
                "AgentConfigInvalid", f"Codex does not take agent.codex.config: {error.message}"
            ) from None
        except (ServerGone, ServerSilent) as error:
            raise _unusable(server, error) from None

    # --- the conversation -------------------------------------------------------------------

    def _converse(self, server: AppServer, context: TurnContext) -> bool:
        """Have a conversation loaded; whether it is a new one.

        Raises: TurnError, OSError, ServerGone.
        """
        if context.fresh:
            self._leave(server)
        elif self._thread:
            return False
        else:
            kept = self._file.read()
            if kept and self._resume(server, kept, context):
                return False
        self._begin(server, context)
        return True

    def _begin(self, server: AppServer, context: TurnContext) -> None:
        ephemeral = self._config.agent.fresh_thread_per_prompt
        found = self._ask(server, "thread/start", {**self._terms(context), "ephemeral": ephemeral})
        try:
            thread = str(found["thread"]["id"])
        except (KeyError, TypeError):
            raise TurnError("infrastructure", "Codex began a conversation without an id") from None
        if not ephemeral:
            self._file.write(thread)
        self._ledger.started(thread)
        self._loaded(thread, found)

    def _resume(self, server: AppServer, thread: str, context: TurnContext) -> bool:
        """Go on with an earlier conversation; if that is impossible, tell."""
        params = {**self._terms(context), "threadId": thread, "excludeTurns": True}
        self._ledger.resumed(thread)
        try:
            found = server.request("thread/resume", params, REQUEST_SECONDS)
        except RequestRefused as error:
            message = (
                f"the conversation {thread} cannot be resumed ({error.message}): a new one is "
                "begun, which knows nothing of what was said before"
            )
            told = {"class": "session", "message": message, "will_retry": False}
            context.emit(records.AGENT_ERROR, told)
            return False
        except ServerSilent as error:
            raise TurnError("infrastructure", str(error)) from None
        self._loaded(thread, found)
        return True

    def _loaded(self, thread: str, found: Any) -> None:
        self._thread = thread
        model = found.get("model") if isinstance(found, dict) else ""
        self._model = str(model or self._config.agent.model)

    def _leave(self, server: AppServer) -> None:
        """Let Codex forget the conversation that was."""
        if self._thread:
            server.send("thread/unsubscribe", {"threadId": self._thread})
            self._thread = ""

    def _terms(self, context: TurnContext) -> dict[str, Any]:
        terms = {
            "cwd": str(context.workdir),
            "approvalPolicy": approval_policy(context.approval_policy),
            "sandbox": self._sandbox.mode,
        }
        model = self._config.agent.model
        return {**terms, "model": model} if model else terms

    def _with_system_prompt(self, prompt: str) -> str:
        """A new conversation in the middle of a worker's life has not heard it yet."""
        system = self._config.system_prompt
        return f"{system}\n\n{prompt}" if system else prompt

    def _carry_out(self, server: AppServer, prompt: str, context: TurnContext) -> str:
        narrator = Narrator(context, self._thread, self._model, self._ledger)
        turn = CodexTurn(server, context, self._thread, narrator)
        self._turn = turn
        params = {
            "threadId": self._thread,
            "input": [*self._instructions(context), *text_input(prompt)],
            "cwd": str(context.workdir),
            "approvalPolicy": approval_policy(context.approval_policy),
            "sandboxPolicy": self._sandbox.policy(),
        }
        return turn.run(params)

    def _instructions(self, context: TurnContext) -> list[dict[str, str]]:
        """Those of the repository, if this conversation does not know them yet."""
        told = (self._thread, instructions_of(context.workdir))
        if not told[1] or told == self._told:
            return []
        self._told = told
        return text_input(told[1])

    def _ask(self, server: AppServer, method: str, params: Mapping[str, Any]) -> Any:
        try:
            return server.request(method, params, REQUEST_SECONDS)
        except RequestRefused as error:
            raise turn_error({"message": error.message}, model=self._config.agent.model) from None
        except ServerSilent as error:
            raise TurnError("infrastructure", str(error)) from None

    # --- the client's thread ----------------------------------------------------------------

    def _receive(self, message: Message, size: int) -> None:
        turn = self._turn
        if turn is not None:
            turn.put(message, size)
        elif "id" in message:
            self._refuse(message)
        else:
            self._note(message["method"], message.get("params"))

    def _note(self, method: str, params: Any) -> None:
        """What is told between turns."""
        if not isinstance(params, dict):
            return
        if method == "thread/tokenUsage/updated":
            self._ledger.replayed(str(params.get("threadId")), params.get("tokenUsage"))
        elif method == "configWarning" and NOISE not in str(params.get("summary")):
            complain(f"codex: {params.get('summary')} {params.get('details') or ''}"[:1000])

    def _refuse(self, message: Message) -> None:
        """A request while no turn runs: there is nobody to ask."""
        server = self._server
        if server is None:
            return
        answer = questions.without_person(message["method"])
        if answer is None:
            server.refuse(message["id"], "no turn is running")
        else:
            server.reply(message["id"], answer)

    def _traffic(self, direction: str, line: bytes) -> None:
        context = self._context
        if context is not None and context.tracer is not None:
            context.trace(direction, line.decode("utf-8", "replace"))

    def _ended(self) -> None:
        turn = self._turn
        if turn is not None:
            turn.poke()


def _unusable(server: AppServer, error: Exception) -> RuntimeUnusable:
    """Why a process did not come up: mostly a configuration that it does not take."""
    said = server.errors[-1000:]
    if isinstance(error, ServerSilent):
        return RuntimeUnusable("AgentUnresponsive", f"Codex does not answer: {error}")
    reason = "AgentConfigInvalid" if "config" in said.lower() else "AgentFailed"
    return RuntimeUnusable(reason, f"Codex does not start: {said or error}")
