"""Secrets that must not be told: every record of a worker goes through here before it is written.

What an agent's commands print, what it quotes and what its runtime sends may hold the values of
its environment.  They are replaced by ``[masked]`` wherever they appear whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "[masked]"
MIN_CHARS = 8
"""Shorter values are no secrets, and would blot out ordinary words."""
MIN_LINE_CHARS = 20
"""From this length on a line of a secret of several lines is masked by itself."""

_TOKENS = re.compile(
    r"""
    (?P<keep>
        \b(?:bearer|basic)\s+
      | \\?"(?:x-)?(?:api[-_]?key|access[-_]?token|refresh[-_]?token|id[-_]?token|session[-_]?token
          |client[-_]?secret|secret[-_]?access[-_]?key|password|authorization)\\?"\s*:\s*\\?"
    )(?:bearer\s+|basic\s+)?[A-Za-z0-9._~+/=-]{8,}
  | \b(?:sk|rk|pk|xox[abprs])-[A-Za-z0-9_-]{16,}
  | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}
  | \bgh[pousr]_[A-Za-z0-9]{20,}
  | \bgithub_pat_[A-Za-z0-9_]{20,}
  | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What looks like a credential, whoever's it is."""


class Masker:
    """Replaces known secrets.

    Args:
        secrets: their values; those shorter than ``MIN_CHARS`` are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._needles: list[str] = []
        self._encoded: list[str] = []
        self._known: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Replace these from now on as well."""
        needles = {form for value in secrets for form in _forms(value)}
        if needles <= set(self._needles):
            return
        ordered = sorted(needles.union(self._needles), key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, ordered)))
        self._needles = ordered
        self._encoded = [_in_json(needle) for needle in ordered]

    def finds(self, body: str) -> bool:
        """Whether a text of JSON data holds a known secret."""
        return any(needle in body for needle in self._encoded)

    def mask(self, text: str) -> str:
        """The text without the known secrets."""
        return text if self._known is None else self._known.sub(MASK, text)

    def mask_all(self, value: Any) -> Any:
        """JSON data with every text in it masked."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, dict):
            return {self.mask(str(name)): self.mask_all(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mask_all(item) for item in value]
        return value

    def mask_traffic(self, text: str) -> str:
        """Raw traffic without the known secrets and without what looks like a credential."""
        return _TOKENS.sub(lambda found: (found.group("keep") or "") + MASK, self.mask(text))


def _forms(value: str) -> Iterator[str]:
    """How a secret may be spelled: as it is, in JSON, in a URL, line by line."""
    whole = value.strip()
    lines = [line.strip() for line in whole.splitlines()] if "\n" in whole else []
    texts = [whole] if len(whole) >= MIN_CHARS else []
    for text in texts + [line for line in lines if len(line) >= MIN_LINE_CHARS]:
        yield text
        yield _in_json(text)
        yield _in_json(_in_json(text))  # such as the arguments of a call in a message
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield _in_url(text)


def _in_json(text: str) -> str:
    """As it stands between the quotes of a string."""
    return json.dumps(text)[1:-1]


def _in_url(text: str) -> str:
    """Percent-encoded (RFC 3986, 2.1)."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "-._~") else _percent(char)
        for char in text
    )


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
