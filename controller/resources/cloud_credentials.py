"""AWS credentials do not belong into manifests: where one has any. Pure.

Manifests are kept in files, repositories and the store, and shown to whoever may read a Swarm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from controller.resources.errors import join

_PATTERNS = (
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    re.compile(
        r"aws[_-]?(?:secret[_-]?access[_-]?key|session[_-]?token|security[_-]?token)"
        r"[\"']?\s*(?:[=:]|\s)\s*[\"']?[A-Za-z0-9/+=]{16,}",
        re.IGNORECASE,
    ),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"[?&]X-Amz-(?:Credential|Signature|Security-Token)=", re.IGNORECASE),
    re.compile(r"^[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]*@", re.IGNORECASE),
)
_NAME = re.compile(
    r"aws[_-]?(?:access[_-]?key[_-]?id|secret[_-]?access[_-]?key|session[_-]?token"
    r"|security[_-]?token)",
    re.IGNORECASE,
)
"""Of a field or tag that would hold one."""
_SECRET = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9/+]{40}")
"""A secret access key on its own; a commit or another hash has no capital letters."""


def credentials_in(value: Any, path: str) -> list[str]:
    """Paths of the fields that hold a credential, in order; never the credentials themselves.

    Args:
        value: a part of a manifest.
        path: where it stands.
    """
    return list(dict.fromkeys(_found(value, path)))


def _found(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if _holds(str(key)):
                yield path  # the key is the secret itself
            elif _NAME.fullmatch(str(key)) and inner:
                yield join(path, str(key))
            else:
                yield from _found(inner, join(path, str(key)))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _found(inner, join(path, number))
    elif isinstance(value, str) and _holds(value):
        yield path


def _holds(text: str) -> bool:
    return bool(_SECRET.fullmatch(text.strip())) or any(one.search(text) for one in _PATTERNS)
