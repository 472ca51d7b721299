"""What a worker is told at its start: ``worker.json``, the ``env`` file and its environment."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from worker.errors import ConfigError

JOB_VARIABLE = "CODESWARM_JOB_ID"
NODE_VARIABLE = "CODESWARM_NODE_ID"
BASE_VARIABLE = "CODESWARM_BASE_DIR"

MAX_FILE_BYTES = 12 << 20

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_OWN_NAMES = frozenset(
    {"mailbox", "secrets", "git", "stores", "env", "heartbeat", "tmp", "codex", "claude"}
    | {"worker.json", "worker.lock", "worker.pid", "worker.log"}
    | {"claim", "failure", "notice", "ended", "supervisor.lock"}
)


@dataclass(frozen=True)
class AgentConfig:
    """The ``agent`` block: how the runtime is to behave."""

    model: str = ""
    approval_policy: str = "never"  # never | on-request | untrusted | on-failure
    sandbox_mode: str = "workspace-write"
    network_access: bool = False
    fresh_thread_per_prompt: bool = False
    mock_delay_seconds: float = 0.0
    codex: Mapping[str, Any] = field(default_factory=dict)
    claude: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Persona:
    """Standing instructions of the agent, and files that it may look up."""

    instructions: str = ""
    """The baseline and the persona's own text, Markdown; empty: none."""
    skills: Mapping[str, str] = field(default_factory=dict)
    """Text by path relative to the skills folder, e.g. ``review/SKILL.md``."""


@dataclass(frozen=True)
class Config:
    """One worker's settings."""

    base: Path
    """The worker's own folder, absolute."""
    job: str
    node: str
    index: int
    runtime: str
    workspace: Path
    """Where agents work: below ``base``."""
    stores: Path
    """Folder of the host's shared object stores."""
    namespace: str = "default"
    swarm: str = ""
    swarm_uid: str = ""
    agent: AgentConfig = field(default_factory=AgentConfig)
    system_prompt: str = ""
    persona: Persona = field(default_factory=Persona)
    hint: Path | None = None
    """FIFO to poke after the outbox grew."""
    heartbeat_seconds: float = 1.0
    poll_seconds: float = 0.0
    """How often the inbox is looked at where nobody can poke a FIFO, as on a file system that
    several hosts share; 0: its FIFO tells."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the agent's commands get beside the worker's own environment; secrets included."""
    secret_names: frozenset[str] | None = None
    """Those of ``env`` whose values must not be told; None: all."""

    @property
    def shared(self) -> bool:
        """Whether its folder is on a file system that several hosts share: it is a batch job."""
        return self.poll_seconds > 0

    @property
    def secrets(self) -> list[str]:
        """Values that no record may hold."""
        names = self.secret_names
        return [value for name, value in self.env.items() if names is None or name in names]

    @property
    def inbox(self) -> Path:
        """Controller to worker."""
        return self.base / "mailbox" / "inbox" / f"{self.job}_{self.index:02d}.jsonl"

    @property
    def outbox(self) -> Path:
        """Worker to controller."""
        return self.base / "mailbox" / "outbox" / f"{self.job}_{self.index:02d}.jsonl"

    @property
    def wake(self) -> Path:
        """FIFO that is poked after the inbox grew."""
        return self.base / "mailbox" / "inbox" / "wake"


def load(base: Path, environ: MutableMapping[str, str]) -> Config:
    """Read ``worker.json`` and the ``env`` file, which is removed.

    Args:
        base: the worker's folder.
        environ: the process environment; the three ``CODESWARM_`` variables are put into it
            where they are missing, so that all children carry them.

    Raises: ConfigError.
    """
    base = base.absolute()
    data = _read_object(base / "worker.json")
    reader = _Reader(data, "worker.json")
    job = environ.setdefault(JOB_VARIABLE, reader.text("job", required=True))
    if job != data["job"]:
        raise ConfigError(f"worker.json: job is {data['job']!r}, but {JOB_VARIABLE} is {job!r}")
    if not _JOB.match(job):
        raise ConfigError(f"worker.json: job {job!r} cannot name a file")
    index = reader.number("index", 0)
    node = environ.setdefault(NODE_VARIABLE, reader.text("node") or str(int(index)))
    environ.setdefault(BASE_VARIABLE, str(base))
    hint = reader.text("hint")
    return Config(
        base=base,
        job=job,
        node=node,
        index=int(index),
        runtime=reader.text("runtime", required=True),
        workspace=base / workspace_subdir(reader.text("workspaceSubdir") or "repo"),
        stores=Path(reader.text("stores") or base / "stores"),
        namespace=reader.text("namespace") or "default",
        swarm=reader.text("swarm"),
        swarm_uid=reader.text("swarm_uid"),
        agent=_agent(_Reader(reader.table("agent"), "worker.json: agent")),
        system_prompt=reader.text("systemPrompt"),
        persona=_persona(_Reader(reader.table("persona"), "worker.json: persona")),
        hint=Path(hint) if hint else None,
        heartbeat_seconds=max(0.05, reader.number("heartbeatSeconds", 1.0)),
        poll_seconds=_poll(reader.number("pollSeconds", 0.0)),
        env=take_env(base / "env"),
        secret_names=_secret_names(data.get("secretNames")),
    )


def _poll(seconds: float) -> float:
    return max(0.05, seconds) if seconds else 0.0


def workspace_subdir(text: str) -> PurePosixPath:
    """A ``workspaceSubdir`` that stays inside the worker's folder.

    Raises: ConfigError.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in text:
        raise ConfigError(
            f"workspaceSubdir: {text!r} leaves the worker's folder; give a relative path "
            "without '..'"
        )
    if path.parts[0] in _OWN_NAMES:
        raise ConfigError(f"workspaceSubdir: {path.parts[0]!r} is the worker's own")
    return path


def take_env(path: Path) -> dict[str, str]:
    """The ``env`` file: a JSON object, or ``NAME="JSON string"`` lines. It is removed once read.

    Raises: ConfigError; the values are never in its text.
    """
    try:
        text = _read(path)
    except FileNotFoundError:
        return {}
    path.unlink()
    values = _env_object(text) if text.lstrip().startswith("{") else _env_lines(text)
    for name, value in values.items():
        if not _NAME.match(name) or not isinstance(value, str) or "\0" in value:
            raise ConfigError(f"env: {name!r} is not a variable with a text value")
    return values


def _env_object(text: str) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise ConfigError("env: not a JSON object of variables") from None


def _env_lines(text: str) -> dict[str, str]:
    values = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        try:
            values[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            equals = ""
        if not equals:
            raise ConfigError(f'env: line {number} is not NAME="value" (a JSON string)') from None
    return values


def _agent(reader: _Reader) -> AgentConfig:
    mock = _Reader(reader.table("mock"), "worker.json: agent.mock")
    return AgentConfig(
        model=reader.text("model"),
        approval_policy=reader.text("approvalPolicy") or "never",
        sandbox_mode=reader.text("sandboxMode") or "workspace-write",
        network_access=reader.flag("networkAccess"),
        fresh_thread_per_prompt=reader.flag("freshThreadPerPrompt"),
        mock_delay_seconds=mock.number("delaySeconds", 0.0),
        codex=reader.table("codex"),
        claude=reader.table("claude"),
    )


def _persona(reader: _Reader) -> Persona:
    skills = reader.table("skills")
    for path, text in skills.items():
        if not isinstance(text, str):
            raise ConfigError("worker.json: persona: skills must be texts by path")
        _check_skill(path)
    return Persona(instructions=reader.text("instructions"), skills=skills)


def _check_skill(text: str) -> None:
    path = PurePosixPath(text)
    bad = path.is_absolute() or not path.parts or str(path) != text
    if bad or ".." in path.parts or ".git" in map(str.lower, path.parts) or not text.isprintable():
        raise ConfigError(f"worker.json: persona: {text!r} is no path below a skills folder")


def _secret_names(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigError("worker.json: secretNames must be a list of names")
    return frozenset(value)


class _Reader:
    """Typed look-ups in one JSON object; null counts as absent."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data = data
        self._where = where

    def text(self, name: str, *, required: bool = False) -> str:
        value = self._data.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            raise ConfigError(f"{self._where}: {name} must be a string")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._data.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise ConfigError(f"{self._where}: {name} must be a number, 0 or more")
        return value

    def flag(self, name: str) -> bool:
        value = self._data.get(name)
        if not isinstance(value, (bool, type(None))):
            raise ConfigError(f"{self._where}: {name} must be true or false")
        return bool(value)

    def table(self, name: str) -> Mapping[str, Any]:
        value = self._data.get(name)
        if not isinstance(value, (dict, type(None))):
            raise ConfigError(f"{self._where}: {name} must be an object")
        return value or {}


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(_read(path))
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path.name} must hold a JSON object")
    return data


def _read(path: Path) -> str:
    """A regular file's text, no symlink followed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ConfigError(f"{path.name} is not a file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name} is not UTF-8") from None
