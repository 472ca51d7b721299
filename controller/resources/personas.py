"""Personas: standing instructions and skills of agents, from a folder, a file or a ConfigMap.

A folder holds ``AGENTS.md`` and, where there are skills, ``skills/<name>/SKILL.md`` with whatever
belongs to it.  A ConfigMap's keys have no slashes: there ``__`` stands for one
(``skills__review__SKILL.md``).  What cannot be used is a condition, as with all references.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from controller.resources import core
from controller.resources.texts import (
    FILE_MODE,
    MAX_TEXT,
    Lookup,
    Sources,
    Unresolved,
    find_object,
    read_text,
    resolve_path,
    text_of,
)

AGENTS = "AGENTS.md"
SKILLS = "skills"
SKILL = "SKILL.md"
MAX_DESCRIPTION = 1024
SEPARATOR = "__"
"""A slash in a ConfigMap's keys."""
MAX_SKILL_FILES = 200
MAX_DEPTH = 8
"""Folders within each other below ``skills``."""
MAX_SKILL_FOLDERS = 200
"""Altogether: links make many of few."""
MAX_BYTES = 1024 * 1024
"""UTF-8, of instructions and skills together; a ConfigMap holds no more either."""

_WHERE = "agent.persona"
_LEFT_OUT = frozenset({"__pycache__"})
"""Beside what begins with a dot."""
_T = TypeVar("_T", str, Path)
_HEAD = re.compile(r"---[ \t]*\r?\n(.{0,8192}?)\n---[ \t]*\r?(?:\n|\Z)", re.DOTALL)
_DESCRIPTION = re.compile(
    r"^description:[ \t]*(?:[>|][-+]?[ \t]*(?=\r?\n))?((?:[^\n]|\n(?=[ \t]))*)", re.MULTILINE
)
_PART = re.compile(r"[^/\\\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Persona:
    """What an agent is told before any prompt, and what it may look up."""

    instructions: str = ""
    skills: Mapping[str, str] = field(default_factory=dict)
    """Texts by path below the skills folder."""


class _Fault(Exception):
    """Ends the reading of a persona."""

    def __init__(self, unresolved: Unresolved) -> None:
        super().__init__(unresolved.message)
        self.unresolved = unresolved


@cache
def baseline() -> str:
    """The instructions that come before those of every persona, and that stand alone without."""
    return (files("controller.resources") / "baseline.md").read_text("utf-8")


def with_baseline(persona: Persona) -> str:
    """All standing instructions of an agent: the baseline, the persona's own, its skills' list.

    Not every runtime looks for skills in a checkout that it does not trust; the list makes them
    known to all.
    """
    parts = (baseline().strip(), persona.instructions.strip(), _list_of_skills(persona.skills))
    return "\n\n".join(part for part in parts if part) + "\n"


def _list_of_skills(skills: Mapping[str, str]) -> str:
    listed = [
        f"- `.agents/{SKILLS}/{path}`: {_description(text)}".rstrip(": ")
        for path, text in sorted(skills.items())
        if path == SKILL or path.endswith(f"/{SKILL}")
    ]
    if not listed:
        return ""
    head = "# Skills\n\nRead the one that fits what you are about to do, before you do it:"
    return "\n".join([head, "", *listed])


def _description(text: str) -> str:
    """``description`` in the head of a ``SKILL.md``, on one line."""
    head = _HEAD.match(text)
    found = _DESCRIPTION.search(head[1]) if head else None
    return " ".join(found[1].split()).strip("\"'")[:MAX_DESCRIPTION] if found else ""


def resolve_persona(
    obj: Mapping[str, Any],
    persona: Mapping[str, Any] | None,
    lookup: Lookup,
    sources: Sources = FILE_MODE,
) -> Persona | Unresolved:
    """The persona that ``agent.persona`` of ``obj`` names; an empty one where it names none."""
    if not persona:
        return Persona()
    try:
        if "path" in persona:
            return _checked(_from_path(obj, persona["path"], sources))
        return _checked(_from_map(obj, persona["configMapRef"]["name"], lookup))
    except _Fault as fault:
        return fault.unresolved


def _checked(persona: Persona) -> Persona:
    if len(persona.skills) > MAX_SKILL_FILES:
        raise _fault("PersonaTooLarge", f"has more than {MAX_SKILL_FILES} files of skills")
    texts = [persona.instructions, *persona.skills.values()]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size > MAX_BYTES:
        raise _fault("PersonaTooLarge", f"has {size} bytes; {MAX_BYTES} are allowed")
    return persona


# --- folders and files -------------------------------------------------------------------------


def _from_path(obj: Mapping[str, Any], path: str, sources: Sources) -> Persona:
    where = f"{_WHERE}.path"
    found = _good(resolve_path(obj, path, where, sources))
    if not found.is_dir():
        return Persona(_good(read_text(obj, path, where, sources)))
    names = _names(found, path)
    if AGENTS not in names:
        near = next((name for name in sorted(names) if name.lower() == AGENTS.lower()), "")
        hint = f" (there is {near!r}: the case counts)" if near else ""
        message = f"{where}: {path!r} is a folder without {AGENTS}{hint}"
        raise _Fault(Unresolved("PersonaWithoutAgents", message))
    base = path.rstrip("/")
    instructions = _good(read_text(obj, f"{base}/{AGENTS}", where, sources))
    skills: dict[str, str] = {}
    if SKILLS in names:
        for name in _walk(obj, f"{base}/{SKILLS}", "", sources, []):
            if len(skills) == MAX_SKILL_FILES:
                raise _fault("PersonaTooLarge", f"has more than {MAX_SKILL_FILES} files of skills")
            skills[name] = _good(read_text(obj, f"{base}/{SKILLS}/{name}", where, sources))
    return Persona(instructions, skills)


def _walk(
    obj: Mapping[str, Any], folder: str, below: str, sources: Sources, walked: list[str]
) -> Iterator[str]:
    """Paths of the files below a folder, relative to the skills folder; links are followed as far
    as they stay below the manifest's folder. ``walked`` collects the folders."""
    where = f"{_WHERE}.path"
    if below.count("/") >= MAX_DEPTH:
        raise _fault("PersonaTooLarge", f"{folder!r} is deeper than {MAX_DEPTH} folders")
    walked.append(folder)
    if len(walked) > MAX_SKILL_FOLDERS:
        raise _fault("PersonaTooLarge", f"has more than {MAX_SKILL_FOLDERS} folders of skills")
    found = _good(resolve_path(obj, folder, where, sources))
    if not found.is_dir():
        raise _fault("FileUnreadable", f"{folder!r} is not a folder")
    for name in sorted(_names(found, folder)):
        if name.startswith(".") or name in _LEFT_OUT:
            continue
        path = f"{folder}/{name}"
        if not _is_name(name):
            raise _fault("FileUnreadable", f"{path!r}: the name has characters that cannot be used")
        inner = _good(resolve_path(obj, path, where, sources))
        if inner.is_dir():
            yield from _walk(obj, path, f"{below}{name}/", sources, walked)
        else:
            yield f"{below}{name}"


def _names(folder: Path, path: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (only the names are wanted)
    except OSError as error:
        raise _fault("FileUnreadable", f"{path!r} cannot be read: {error.strerror}") from None


# --- ConfigMaps --------------------------------------------------------------------------------


def _from_map(obj: Mapping[str, Any], name: str, lookup: Lookup) -> Persona:
    where = f"{_WHERE}.configMapRef"
    found = find_object(obj, "ConfigMap", name, where, lookup)
    if isinstance(found, Unresolved):
        raise _Fault(found)
    keys = sorted({*(found.get("data") or {}), *(found.get("binaryData") or {})})
    if AGENTS not in keys:
        there = ", ".join(keys[:10]) or "none"
        message = f"{where}: ConfigMap {name!r} has no key {AGENTS} (its keys: {there})"
        raise _Fault(Unresolved("PersonaWithoutAgents", message))
    instructions = _value(found, AGENTS, f"{where} {name!r}: {AGENTS}")
    skills = {
        skill_path(key): _value(found, key, f"{where} {name!r}: {key}")
        for key in keys
        if key.startswith(SKILLS)
    }
    return Persona(instructions, skills)


def skill_path(key: str) -> str:
    """The path below the skills folder that a ConfigMap's key means.

    Raises: _Fault.
    """
    first, *parts = key.split(SEPARATOR)
    usable = all(_is_name(part) and not part.startswith(".") for part in parts)
    if first != SKILLS or not parts or not usable or len(parts) > MAX_DEPTH:
        message = (
            f"{_WHERE}.configMapRef: key {key!r} is no path of a skill: write "
            f"{SKILLS}{SEPARATOR}review{SEPARATOR}SKILL.md for {SKILLS}/review/SKILL.md"
        )
        raise _Fault(Unresolved("PersonaKeyInvalid", message))
    return "/".join(parts)


def _value(found: Mapping[str, Any], key: str, where: str) -> str:
    data = core.value_of(found, key) or b""
    return _good(text_of(data, where, MAX_TEXT))


# --- small things ------------------------------------------------------------------------------


def _is_name(part: str) -> bool:
    """Whether a file's name can be written anywhere: text, no control characters."""
    if part in ("", ".", "..") or part.lower() == ".git" or not _PART.fullmatch(part):
        return False
    return part.isprintable() and not part.endswith(" ")


def _good(value: _T | Unresolved) -> _T:
    if isinstance(value, Unresolved):
        raise _Fault(value)
    return value


def _fault(reason: str, message: str) -> _Fault:
    return _Fault(Unresolved(reason, f"{_WHERE}: {message}"))
