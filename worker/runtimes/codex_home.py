"""A worker's own ``CODEX_HOME``: the configuration, the login and the standing instructions.

What is taken over of the user's own ``~/.codex`` is copied; nothing is written back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.config import Config
from worker.errors import RuntimeUnusable
from worker.log import complain
from worker.runtimes import codex_toml as toml

KEY_VARIABLES = ("CODEX_API_KEY", "OPENAI_API_KEY")
"""Variables that hold a key for OpenAI's API, the first that is set."""
BASE_URL_VARIABLE = "OPENAI_BASE_URL"
HOME_VARIABLE = "CODEX_HOME"

OPENAI = "openai"
"""The provider that Codex uses where none is named."""
GATEWAY = "openai-base-url"
"""The provider that stands for another address of OpenAI's API."""

UNWANTED_FEATURES = ("plugins", "apps", "goals", "shell_snapshot")
"""What would ask other hosts, have Codex work beside or between the turns, or (a snapshot of the
shell) write the environment down, credentials included."""

MAX_LOGIN_BYTES = 1 << 20
MIN_TOKEN_CHARS = 20
"""Of a text in ``auth.json`` that is taken for a secret; account ids and times are no harm."""
SECRET_SETTINGS = ("experimental_bearer_token", "http_headers", "query_params")
"""Those of a provider that may hold its credential."""
INHERITED = ("model_provider", "model_providers", "openai_base_url", "chatgpt_base_url")
"""What is taken over of the user's configuration with the login."""


@dataclass(frozen=True)
class Login:
    """A user's own login."""

    auth: bytes = b""
    """``auth.json``; empty: none."""
    settings: Mapping[str, Any] | None = None
    """Those of ``config.toml`` that go with it; None: there is no such file."""


class CodexHome:
    """The folder.

    Args:
        config: the worker's settings.
        env: the environment that Codex is going to have.
    """

    def __init__(self, config: Config, env: Mapping[str, str]) -> None:
        self.path = config.base / "codex"
        self._config = config
        self._env = env
        self._secrets: list[str] = []

    def write(self) -> dict[str, Any]:
        """Write everything anew; the whole configuration.

        Raises: RuntimeUnusable (AgentConfigInvalid, CredentialMissing); OSError.
        """
        self.path.mkdir(mode=0o700, exist_ok=True)
        key = next((self._env[name] for name in KEY_VARIABLES if self._env.get(name)), "")
        given = self._given()
        login = Login() if key else self._login()
        settings = toml.merged(self._settings(), self._taken_over(login, given))
        settings = toml.merged(settings, given)
        self._check(settings, bool(key), login)
        self._secrets = list(_secrets_of(settings.get("model_providers")))
        if key:
            auth = {"auth_mode": "apikey", "OPENAI_API_KEY": key, "tokens": None}
            self._write("auth.json", json.dumps(auth).encode())
        elif login.auth:
            self._write("auth.json", without_refresh(login.auth))
        else:
            (self.path / "auth.json").unlink(missing_ok=True)
        try:
            text = toml.dumps(settings)
        except toml.TomlError as error:
            raise RuntimeUnusable("AgentConfigInvalid", f"agent.codex.config: {error}") from None
        self._write("config.toml", text.encode())
        self._write("AGENTS.md", self._config.persona.instructions.encode("utf-8", "replace"))
        return settings

    def tokens(self) -> list[str]:
        """The secrets in ``auth.json``, which Codex renews now and then, and in the settings."""
        try:
            login = list(_texts(json.loads(_read(self.path / "auth.json") or b"null")))
        except (OSError, ValueError, RecursionError):
            login = []  # it is being written, or is no login
        return login + self._secrets

    def forget_login(self) -> None:
        """Remove the credential; the next ``write`` puts it there again."""
        try:
            (self.path / "auth.json").unlink(missing_ok=True)
        except OSError:
            pass  # the folder is gone, or no folder: nothing is left to be removed

    # --- what we write ----------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """Quiet, file-backed, and with nothing that a repository could bring with it."""
        agent = self._config.agent
        settings: dict[str, Any] = {
            "check_for_update_on_startup": False,
            "cli_auth_credentials_store": "file",
            "web_search": "live" if agent.network_access else "disabled",
            "analytics": {"enabled": False},
            "feedback": {"enabled": False},
            "features": dict.fromkeys(UNWANTED_FEATURES, False),
            "history": {"persistence": "none"},
            "skills": {"bundled": {"enabled": False}},
            "agents": {"enabled": False},
            "projects": {str(self._config.workspace): {"trust_level": "untrusted"}},
            "shell_environment_policy": {"exclude": list(KEY_VARIABLES)},
        }
        if agent.model:
            settings["model"] = agent.model
        if self._env.get(BASE_URL_VARIABLE):
            settings["model_provider"] = GATEWAY
            settings["model_providers"] = {GATEWAY: _gateway(self._env[BASE_URL_VARIABLE])}
        return settings

    def _given(self) -> dict[str, Any]:
        """``agent.codex.config``: TOML text, or the table that it came to."""
        given = self._config.agent.codex.get("config")
        if isinstance(given, Mapping):
            return dict(given)
        try:
            return toml.loads(given) if isinstance(given, str) else {}
        except toml.TomlError as error:
            raise RuntimeUnusable("AgentConfigInvalid", f"agent.codex.config: {error}") from None

    def _write(self, name: str, data: bytes) -> None:
        """Write a file that only this user may read, whole or not at all."""
        part = self.path / f".{name}.part"
        part.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(part, flags, 0o600), "wb") as file:
            file.write(data)
        part.replace(self.path / name)

    # --- the user's login -------------------------------------------------------------------

    def _login(self) -> Login:
        if not self._config.agent.codex.get("inheritLogin"):
            return Login()
        folder = self._user_home()
        try:
            auth = _read(folder / "auth.json")
            text = _read(folder / "config.toml")
        except OSError as error:
            complain(f"codex: the login in {folder} cannot be taken over: {error.strerror}")
            return Login()
        if not text:
            return Login(auth)
        try:
            settings = toml.loads(text.decode("utf-8", "replace"))
        except toml.TomlError as error:
            complain(f"codex: {folder / 'config.toml'} is passed over: {error}")
            return Login(auth)
        return Login(auth, settings)

    def _user_home(self) -> Path:
        named = self._env.get(HOME_VARIABLE)
        return Path(named) if named else Path(self._env.get("HOME") or "~").expanduser() / ".codex"

    def _taken_over(self, login: Login, given: Mapping[str, Any]) -> dict[str, Any]:
        """The user's provider; their model too, where the manifest names none."""
        settings = login.settings or {}
        names = INHERITED if self._config.agent.model or "model" in given else (*INHERITED, "model")
        return {name: settings[name] for name in names if name in settings}

    # --- checks -----------------------------------------------------------------------------

    def _check(self, settings: Mapping[str, Any], key: bool, login: Login) -> None:
        """Raises: RuntimeUnusable if the provider in use has no credential."""
        provider = settings.get("model_provider") or OPENAI
        known = settings.get("model_providers") or {}
        table = known.get(provider) if isinstance(known, Mapping) else None
        if isinstance(table, Mapping):
            variable = table.get("env_key")
            if variable and not self._env.get(str(variable)):
                raise RuntimeUnusable(
                    "CredentialMissing",
                    f"Codex's provider {provider!r} takes its key from {variable}, which is not "
                    f"set: give it in agent.env or agent.envProfile",
                )
            if not table.get("requires_openai_auth"):
                return
        elif provider != OPENAI:
            return  # one that Codex brings, or does not know: it will say so itself
        if key or login.auth:
            return
        inherit = self._config.agent.codex.get("inheritLogin")
        looked = f", and no login in {self._user_home()} (codex login)" if inherit else ""
        raise RuntimeUnusable(
            "CredentialMissing",
            f"Codex has no credential: neither OPENAI_API_KEY nor CODEX_API_KEY is set{looked}; "
            "give one in agent.env or agent.envProfile",
        )


def _texts(value: Any) -> Iterator[str]:
    """Texts anywhere in data that are long enough to be tokens."""
    if isinstance(value, str) and len(value) >= MIN_TOKEN_CHARS:
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _secrets_of(providers: Any) -> Iterator[str]:
    """What providers' own settings hold of credentials."""
    for table in providers.values() if isinstance(providers, Mapping) else ():
        if isinstance(table, Mapping):
            yield from _texts([table.get(name) for name in SECRET_SETTINGS])


def _gateway(url: str) -> dict[str, Any]:
    """OpenAI's API at another address.

    With the setting ``openai_base_url`` Codex would try WebSockets there for seconds first.
    """
    return {
        "name": "OpenAI",
        "base_url": url,
        "wire_api": "responses",
        "requires_openai_auth": True,
    }


def without_refresh(auth: bytes) -> bytes:
    """A copied login that can be used, but not renewed.

    Renewing gives out a new refresh token and takes the old one away from the user and from
    every other worker.
    """
    try:
        found = json.loads(auth)
        tokens = found["tokens"]
        if not tokens["refresh_token"]:
            return auth
    except (ValueError, KeyError, TypeError, RecursionError):
        return auth
    return json.dumps({**found, "tokens": {**tokens, "refresh_token": ""}}).encode()


def _read(path: Path) -> bytes:
    """A user's file; empty if it is not there.

    Raises: OSError.
    """
    try:
        with open(path, "rb") as file:
            return file.read(MAX_LOGIN_BYTES)
    except FileNotFoundError:
        return b""
