"""What a command line does for certain: its commands, where nothing but commands is in it.

Used by rules that approve.  Whatever this does not understand is not plain, and is left to a
person; it must never take a line for simpler than a shell would.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_COMMANDS = 20
SHELLS = frozenset(
    f"{folder}{name}"
    for folder in ("", "/bin/", "/usr/bin/", "/usr/local/bin/")
    for name in ("bash", "dash", "sh", "zsh")
)
"""Shells that agents wrap a command with; one in the checkout could be anything."""
_SCRIPT = frozenset({"-c", "-lc", "-cl"})
_JOINTS = re.compile(r"[;&|\n\r(){}`]|\$\(")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a line."""

    text: str
    """As it is written, without blanks around it."""
    words: tuple[str, ...]
    """Without quotes."""


def inner(line: str) -> str:
    """The command line that a shell is given by ``-c``; any other line as it is."""
    found = commands(line, controls=True)
    words = found[0].words if found and len(found) == 1 else ()
    if len(words) == 3 and words[0] in SHELLS and words[1] in _SCRIPT:
        return words[2]
    return line


def commands(line: str, *, controls: bool = False) -> tuple[Command, ...] | None:
    """The commands of a line that are joined by ``&&``, ``||``, ``;`` and ``|``.

    None where there is anything else of the shell's in it: expansions, substitutions,
    redirections, groups, background commands, comments, an open quote, control characters.

    Args:
        controls: let control characters stand inside quotes.
    """
    return _Scanner(line, controls).commands()


def pieces(line: str) -> list[str]:
    """All that might be a command of its own in a line; rather too many than too few."""
    return [piece for part in _JOINTS.split(line) if (piece := part.strip())]


class _NotPlain(Exception):
    """The line has something in it besides simple commands."""


class _Scanner:
    """Reads a line as POSIX shells do, as far as it is plain."""

    def __init__(self, line: str, controls: bool) -> None:
        self._line = line
        self._controls = controls
        self._at = 0
        self._begin = 0
        self._words: list[str] = []
        self._word: str | None = None
        self._found: list[Command] = []

    def commands(self) -> tuple[Command, ...] | None:
        try:
            while self._at < len(self._line):
                self._step()
            self._end_command(self._at)
        except _NotPlain:
            return None
        return tuple(self._found)

    def _step(self) -> None:
        char = self._line[self._at]
        if char in " \t":
            self._end_word()
            self._at += 1
        elif char in ";|&":
            self._joint(char)
        elif char == "'":
            self._single()
        elif char == '"':
            self._double()
        elif char == "\\":
            self._add(self._peek(1))
            self._at += 2
        elif char in "$`<>()" or (char == "#" and self._word is None) or _control(char):
            raise _NotPlain
        else:
            self._add(char)
            self._at += 1

    def _joint(self, char: str) -> None:
        doubled = self._line[self._at + 1 : self._at + 2] == char
        if char == "&" and not doubled:
            raise _NotPlain
        end = self._at
        self._at += 2 if doubled and char != ";" else 1
        self._end_command(end)
        self._begin = self._at

    def _single(self) -> None:
        end = self._line.find("'", self._at + 1)
        if end < 0:
            raise _NotPlain
        self._add(self._line[self._at + 1 : end], quoted=True)
        self._at = end + 1

    def _double(self) -> None:
        self._at += 1
        self._add("", quoted=True)
        while (char := self._peek(0)) != '"':
            if char in "$`":
                raise _NotPlain
            if char == "\\":
                following = self._peek(1)
                if following == "\n":
                    raise _NotPlain
                self._add(following if following in '$`"\\' else char + following, quoted=True)
                self._at += 2
            else:
                self._add(char, quoted=True)
                self._at += 1
        self._at += 1

    def _peek(self, ahead: int) -> str:
        if self._at + ahead >= len(self._line):
            raise _NotPlain
        return self._line[self._at + ahead]

    def _add(self, text: str, *, quoted: bool = False) -> None:
        if any(map(_control, text)) and not (quoted and self._controls):
            raise _NotPlain
        self._word = (self._word or "") + text

    def _end_word(self) -> None:
        if self._word is not None:
            self._words.append(self._word)
            self._word = None

    def _end_command(self, end: int) -> None:
        self._end_word()
        if not self._words or len(self._found) >= MAX_COMMANDS:
            raise _NotPlain
        text = self._line[self._begin : end].strip(" \t")
        self._found.append(Command(text, tuple(self._words)))
        self._words = []


def _control(char: str) -> bool:
    return (char < " " and char != "\t") or char == "\x7f"
