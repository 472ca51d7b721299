"""Who asks: the port to a home's authentication, and the file home's one token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

TOKEN_HEADER = "X-Codeswarm-Token"
"""The API server's service proxy keeps ``Authorization`` for itself."""
MAX_TOKEN = 16 * 1024


class AuthError(Exception):
    """No access; the text is fit for who asks."""


class Unauthenticated(AuthError):
    """No token, or not a valid one."""


class Forbidden(AuthError):
    """It is known who asks, and that is not enough."""


class AuthUnavailable(AuthError):
    """Who asks cannot be found out now."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks."""

    name: str


class Authenticator(Protocol):
    """Decides who may read transcripts and events."""

    async def authorize(self, token: str, namespace: str) -> Identity:
        """Whose token it is, if they may read transcripts in the namespace.

        Raises: Unauthenticated, Forbidden, AuthUnavailable.
        """
        ...


class OneToken:
    """The file home: who has the token may read everything."""

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()

    async def authorize(self, token: str, namespace: str) -> Identity:
        """As ``Authenticator.authorize``."""
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        if not hmac.compare_digest(given, self._digest):
            raise Unauthenticated("the token is not the one in http.json of the running controller")
        return Identity("local")


def token_of(headers: Mapping[str, str]) -> str:
    """The token that a request brings. Raises: Unauthenticated.

    Args:
        headers: looked up without regard to case.
    """
    token = headers.get(TOKEN_HEADER, "")
    if not token:
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        token = value.strip() if scheme.lower() == "bearer" else ""
    if not token:
        raise Unauthenticated(f"a token is needed: Authorization: Bearer TOKEN, or {TOKEN_HEADER}")
    if len(token) > MAX_TOKEN or not (token.isascii() and token.isprintable()):
        raise Unauthenticated("what was given is no token")
    return token
