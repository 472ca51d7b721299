"""Colours: on a terminal, unless NO_COLOR (https://no-color.org) is set."""

from __future__ import annotations

import os
import sys

import click

_COLOURS = {
    "good": "green",
    "busy": "cyan",
    "warn": "yellow",
    "bad": "red",
}
_WORDS = {
    "Succeeded": "good", "Completed": "good", "Running": "busy", "Integrating": "busy",
    "Launching": "busy", "Starting": "busy", "Planning": "busy", "Busy": "busy", "Idle": "good",
    "Degraded": "warn", "Attention": "warn", "Draining": "warn", "Stopping": "warn",
    "Terminating": "warn", "Suspended": "warn", "Cancelled": "warn",
    "Failed": "bad", "Lost": "bad", "FAIL": "bad", "WARN": "warn", "OK": "good",
}  # fmt: skip


def colours_wanted() -> bool:
    """Whether stdout shows colours."""
    return not os.environ.get("NO_COLOR") and sys.stdout.isatty()


def paint(text: str, tone: str) -> str:
    """``text`` in the colour of a tone (good, busy, warn, bad, dim, bold), where wanted."""
    if not colours_wanted():
        return text
    if tone == "dim":
        return click.style(text, dim=True)
    if tone == "bold":
        return click.style(text, bold=True)
    return click.style(text, fg=_COLOURS[tone])


def phase(word: str) -> str:
    """A phase in its colour."""
    tone = _WORDS.get(word.strip())
    return paint(word, tone) if tone else word
