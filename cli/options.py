"""Option types that several verbs share."""

from __future__ import annotations

import re

import click

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """Seconds, from ``90``, ``90s``, ``1m30s``, ``2h``; for click's ``type=``.

    Raises: click.BadParameter.
    """
    try:
        return float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise click.BadParameter(f'"{text}" is no duration: 90, 90s, 1m30s, 2h') from None
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
