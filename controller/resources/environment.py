"""Environments of agents: variables of a profile, filled in, and what is inherited without one.

Nothing here puts a value into a message: what is wrong is told by name and position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
COMMON_VARIABLES = frozenset({*_PROXIES, *(name.lower() for name in _PROXIES)})
"""Inherited by every agent that has no profile."""

_CODEX = frozenset(
    {
        "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORGANIZATION", "OPENAI_PROJECT",
        "CODEX_API_KEY", "AZURE_OPENAI_API_KEY",
    }
)  # fmt: skip
_CLAUDE = frozenset(
    {
        "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL",
        "ANTHROPIC_SMALL_FAST_MODEL", "ANTHROPIC_DEFAULT_OPUS_MODEL",
        "ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL",
        "ANTHROPIC_CUSTOM_HEADERS", "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_USE_BEDROCK", "ANTHROPIC_BEDROCK_BASE_URL", "AWS_BEARER_TOKEN_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX", "ANTHROPIC_VERTEX_BASE_URL", "ANTHROPIC_VERTEX_PROJECT_ID",
        "CLOUD_ML_REGION",
    }
)  # fmt: skip
PROVIDER_VARIABLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"codex": _CODEX, "claude": _CLAUDE, "mock": _CODEX | _CLAUDE}
)
"""By runtime; the scripted agent stands for either.  No AWS or Google credential is among them:
those may be the controller's own, and a profile can name them."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIAL_WORDS = frozenset(
    {
        "KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASS", "PASSPHRASE",
        "CREDENTIAL", "CREDENTIALS", "AUTH", "AUTHORIZATION", "BEARER", "COOKIE", "PAT", "PRIVATE",
        "HEADERS", "DSN",
    }
)  # fmt: skip
_USER_IN_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s@]+@")


class TemplateError(ValueError):
    """A profile's value is not well formed; the text says where, and never what stands there."""


def inherited(runtime: str, own: Mapping[str, str]) -> dict[str, str]:
    """What an agent without a profile gets of the controller's environment ``own``."""
    names = COMMON_VARIABLES | PROVIDER_VARIABLES.get(runtime, frozenset())
    return {name: own[name] for name in sorted(names) if name in own}


def variables(template: str) -> list[str]:
    """The names that a profile's value needs, in order. Raises: TemplateError."""
    return [part for part, is_name in _parts(template) if is_name]


def fill(template: str, own: Mapping[str, str]) -> str:
    """A profile's value with ``${NAME}`` filled in.

    Raises: TemplateError; KeyError for a variable that is not there.
    """
    return "".join(own[part] if is_name else part for part, is_name in _parts(template))


def missing(templates: Mapping[str, str], own: Mapping[str, str]) -> list[tuple[str, str]]:
    """``(variable of the profile, name that it needs)`` for each that is not in ``own``."""
    return [
        (name, needed)
        for name, template in sorted(templates.items())
        for needed in dict.fromkeys(variables(template))
        if needed not in own
    ]


def _parts(template: str) -> Iterator[tuple[str, bool]]:
    """Literal texts and variables' names (True), in order."""
    at = 0
    while (dollar := template.find("$", at)) >= 0:
        yield template[at:dollar], False
        if template.startswith("$$", dollar):
            yield "$", False
            at = dollar + 2
            continue
        found = NAME.match(template, dollar + 2) if template.startswith("${", dollar) else None
        if found is None or not template.startswith("}", found.end()):
            raise TemplateError(_fault(template, dollar))
        yield found[0], True
        at = found.end() + 1
    yield template[at:], False


def _fault(template: str, dollar: int) -> str:
    where = f"character {dollar + 1}"
    if not template.startswith("${", dollar):
        return f"{where}: a single $; write ${{NAME}} for a variable, $$ for a dollar sign"
    if "}" not in template[dollar:]:
        return f"{where}: ${{ has no closing }}"
    return f"{where}: between ${{ and }} stands the name of a variable, nothing else"


def is_credential(name: str, value: str = "", needed: Iterable[str] = ()) -> bool:
    """Whether a variable is taken for a secret, by its name, that of what it was made from
    (``needed``), or because it is a URL with a user in it."""
    return (
        any(
            word in _CREDENTIAL_WORDS
            for each in (name, *needed)
            for word in each.upper().split("_")
        )
        or _USER_IN_URL.match(value) is not None
    )
