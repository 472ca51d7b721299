"""``sbatchOptions``: which may be given, and what they say of what a manifest also says.

sbatch reads options as getopt_long(3) does: long names may be cut short as long as they are
unambiguous, and short ones may stand together (``-HJname``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from providers.base import ProviderError

_IDENTITY = "Codeswarm finds its jobs again by it; leave it out"
_REFUSED: Mapping[str, str] = {
    "array": _IDENTITY,
    "job-name": _IDENTITY,
    "comment": _IDENTITY,
    "parsable": "Codeswarm sets it itself; leave it out",
    "wrap": "a worker's job runs the worker; use setupCommands for what comes before it",
    "test-only": "nothing would be submitted; leave it out",
    "requeue": "a worker never begins twice, a new one takes its place; leave it out",
    "no-requeue": "Codeswarm sets it itself; leave it out",
    "output": "the log is worker.log in the worker's folder; leave it out",
    "error": "the log is worker.log in the worker's folder; leave it out",
    "input": "a worker reads its mailbox and nothing else; leave it out",
    "open-mode": "Codeswarm sets it itself; leave it out",
    "chdir": "a worker works in its own folder below workspaceRoot; leave it out",
    "workdir": "a worker works in its own folder below workspaceRoot; leave it out",
    "signal": "Codeswarm sets it to have a worker finish before its time limit; leave it out",
    "wait": "Codeswarm asks for a job's state itself; leave it out",
    "clusters": "one swarm has one cluster: give a loginHost of the other one",
    "cluster": "one swarm has one cluster: give a loginHost of the other one",
    "uid": "jobs run as the user that logs in: give user",
    "gid": "jobs run with the group of the user that logs in; leave it out",
    "help": "it submits nothing; leave it out",
    "usage": "it submits nothing; leave it out",
    "version": "it submits nothing; leave it out",
    "quiet": "what sbatch says is how Codeswarm learns the job's id; leave it out",
    "hold": "the job would wait for somebody to release it; leave it out",
}
"""Long names that are refused, and what to do instead."""
_LETTERS: Mapping[str, str] = {
    "a": "array", "J": "job-name", "o": "output", "e": "error", "i": "input", "D": "chdir",
    "M": "clusters", "W": "wait", "V": "version", "h": "help", "u": "usage", "Q": "quiet",
    "H": "hold",
}  # fmt: skip
_BARE = frozenset("HhkOsQuvVWX")
"""Letters that take no value."""
_WHOLE = frozenset({"no-kill", "wait-all-nodes", "error-on-exit", "time", "constraint"})
"""Names that are no abbreviations though they look like one of a refused name."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option as sbatch understands it."""

    name: str
    """Long name (maybe cut short) without dashes, or one letter."""
    value: str | None


def arguments(options: Sequence[str]) -> list[str]:
    """``sbatchOptions`` as arguments for sbatch.

    ``--mem 4G`` in one text, as people write it in a script, becomes two arguments.

    Raises: ProviderError (``SbatchOptionRefused``).
    """
    argv: list[str] = []
    for text in options:
        argv += _split(text)
        for option in _read(text):
            _check(option, text)
    return argv


def value_of(options: Sequence[str], name: str, letter: str) -> str | None:
    """What the last of these options says for a name such as ``partition``; None: nothing."""
    found = [
        option.value
        for text in options
        for option in _read(text)
        if option.name in (name, letter) and option.value is not None
    ]
    return found[-1] if found else None


def _split(text: str) -> list[str]:
    name, _, value = text.strip().partition(" ")
    if not value.strip() or "=" in name:
        return [text.strip()]
    return [name, value.strip()]


def _read(text: str) -> Iterator[Option]:
    first, *more = _split(text)
    value = more[0] if more else None
    if first.startswith("--"):
        name, equals, inside = first[2:].partition("=")
        yield Option(name, inside if equals else value)
        return
    letters = first[1:] if first.startswith("-") else ""  # a script's name is no option
    for at, letter in enumerate(letters):
        if letter in _BARE and at + 1 < len(letters):
            yield Option(letter, None)
            continue
        rest = letters[at + 1 :]
        yield Option(letter, rest or value)
        return
    yield Option("", None)


def _check(option: Option, text: str) -> None:
    name = _LETTERS.get(option.name, "") if len(option.name) == 1 else option.name
    if not option.name:
        raise ProviderError(
            "SbatchOptionRefused",
            f"sbatchOptions: {text!r} is no option; give one such as --gres=gpu:1",
        )
    if not name or name in _WHOLE:
        return
    refused = name if name in _REFUSED else next((r for r in _REFUSED if r.startswith(name)), None)
    if refused is not None:
        raise ProviderError(
            "SbatchOptionRefused",
            f"sbatchOptions: {text!r} is not possible (--{refused}): {_REFUSED[refused]}",
        )
