"""Texts and values by reference: ``promptFrom``, ``valueFrom``, environments of agents.

What cannot be resolved is a value, not an exception: it becomes a condition, and is looked at
again when the world has changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from controller.resources import core

BASE_DIR = "codeswarm.dev/base-dir"
"""Annotation: folder of the manifest, recorded by the CLI."""
MAX_TEXT = 262_144
"""Characters; that of ``prompt`` in the CRDs."""
MAX_VALUE = 65_536
"""Characters of a value that comes by ``valueFrom``."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A reference that leads nowhere now: a condition's reason and message."""

    reason: str
    message: str


class Denied(Exception):
    """What a lookup raises for an object that may not be read; the text says why."""


class Ref(NamedTuple):
    """Identity of an object, of the shape of the store's ``Key``."""

    kind: str
    namespace: str
    name: str


Lookup = Callable[[Any], Mapping[str, Any] | None]
"""Takes a ``Ref`` (or any key of its shape) to the stored object; ``Store.get`` is one.

Raises: Denied.
"""


@dataclass(frozen=True, slots=True)
class Sources:
    """What besides stored objects may be read; the default is that of file mode."""

    files: bool = True
    """Paths of manifests mean this machine's files."""
    roots: tuple[str, ...] = ()
    """Folders that are read all the same where ``files`` is False (``fileRoots``)."""
    environment: Mapping[str, str] | None = None
    """Variables that may be named; None: the whole environment of this process."""


FILE_MODE = Sources()


def resolve_text(
    obj: Mapping[str, Any],
    holder: Mapping[str, Any],
    field: str,
    lookup: Lookup,
    sources: Sources = FILE_MODE,
) -> str | Unresolved | None:
    """The text of ``field`` or ``<field>From`` in ``holder``, a part of ``obj``'s spec.

    Returns: None where neither is set.
    """
    if field in holder:
        return str(holder[field])
    source = holder.get(f"{field}From")
    if source is None:
        return None
    where = f"{field}From"
    if "path" in source:
        return read_text(obj, source["path"], where, sources)
    data = _referenced(obj, "ConfigMap", source["configMapKeyRef"], where, lookup)
    return data if isinstance(data, Unresolved) else text_of(data, where, MAX_TEXT)


def resolve_secret(
    obj: Mapping[str, Any],
    source: Mapping[str, Any],
    lookup: Lookup,
    sources: Sources = FILE_MODE,
    *,
    where: str = "valueFrom",
) -> str | Unresolved:
    """The value behind a ``valueFrom`` (``secretKeyRef`` or ``env``)."""
    if "env" in source:
        return _environment(source["env"], where, sources)
    data = _referenced(obj, "Secret", source["secretKeyRef"], where, lookup)
    return data if isinstance(data, Unresolved) else text_of(data, where, MAX_VALUE)


def resolve_env(
    obj: Mapping[str, Any],
    env: Iterable[Mapping[str, Any]],
    lookup: Lookup,
    sources: Sources = FILE_MODE,
) -> dict[str, str] | Unresolved:
    """The variables of ``agent.env`` with their values, or the first that has none."""
    result: dict[str, str] = {}
    for item in env:
        if "value" in item:
            result[item["name"]] = item["value"]
            continue
        where = f"env {item['name']}"
        value = resolve_secret(obj, item["valueFrom"], lookup, sources, where=where)
        if isinstance(value, Unresolved):
            return value
        result[item["name"]] = value
    return result


def resolve_path(
    obj: Mapping[str, Any], path: str, where: str, sources: Sources = FILE_MODE
) -> Path | Unresolved:
    """The file or folder that a manifest's relative path means, links followed.

    It is below the manifest's folder, or below one of the roots in the other home.
    """
    base = (obj["metadata"].get("annotations") or {}).get(BASE_DIR)
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\0" in path:
        return Unresolved("PathOutsideFolder", f"{where}: {path!r} leaves the manifest's folder")
    folders = [base] if sources.files and base else list(sources.roots)
    if not folders:
        if not sources.files:
            return Unresolved("NotInThisHome", f"{where}: this home has no files; use a ConfigMap")
        message = f"{where}: the manifest's folder is not known (annotation {BASE_DIR})"
        return Unresolved("NoBaseDirectory", message)
    return _below(folders, path, where)


def _below(folders: list[str], path: str, where: str) -> Path | Unresolved:
    for folder in folders:
        try:
            root = Path(folder).resolve(strict=True)
            found = (root / path).resolve(strict=True)
        except FileNotFoundError:
            continue
        except (OSError, RuntimeError) as error:
            return Unresolved("FileUnreadable", f"{where}: {path!r} cannot be read: {error}")
        if not found.is_relative_to(root):
            message = f"{where}: {path!r} leads out of the manifest's folder by a link"
            return Unresolved("PathOutsideFolder", message)
        return found
    return Unresolved("FileNotFound", f"{where}: there is no {path!r} in {', '.join(folders)}")


def read_text(obj: Mapping[str, Any], path: str, where: str, sources: Sources) -> str | Unresolved:
    """The text of a file that a manifest's relative path means."""
    file = resolve_path(obj, path, where, sources)
    if isinstance(file, Unresolved):
        return file
    if not file.is_file():
        return Unresolved("FileUnreadable", f"{where}: {path!r} is not a file")
    try:
        with file.open("rb") as stream:
            data = stream.read(4 * MAX_TEXT + 1)
    except OSError as error:
        message = f"{where}: {path!r} cannot be read: {error.strerror}"
        return Unresolved("FileUnreadable", message)
    return text_of(data, where, MAX_TEXT)


def find_object(
    obj: Mapping[str, Any], kind: str, name: str, where: str, lookup: Lookup
) -> Mapping[str, Any] | Unresolved:
    """A Secret or ConfigMap in an object's own namespace."""
    namespace = obj["metadata"].get("namespace") or "default"
    try:
        found = lookup(Ref(kind, namespace, name))
    except Denied as denied:
        return Unresolved("Forbidden", f"{where}: {kind} {name!r} may not be read: {denied}")
    if found is None:
        return Unresolved(f"{kind}NotFound", f"{where}: there is no {kind} {name!r} here")
    return found


def _referenced(
    obj: Mapping[str, Any], kind: str, ref: Mapping[str, Any], where: str, lookup: Lookup
) -> bytes | Unresolved:
    name, key = ref["name"], ref["key"]
    found = find_object(obj, kind, name, where, lookup)
    if isinstance(found, Unresolved):
        return found
    data = core.value_of(found, key)
    if data is None:
        return Unresolved(f"{kind}KeyNotFound", f"{where}: {kind} {name!r} has no key {key!r}")
    return data


def _environment(name: str, where: str, sources: Sources) -> str | Unresolved:
    if not sources.files and name not in (sources.environment or ()):
        message = f"{where}: variables of the controller are not available here; use a Secret"
        return Unresolved("NotInThisHome", message)
    values = os.environ if sources.environment is None else sources.environment
    if name not in values:
        message = f"{where}: {name} is not set in the environment of the controller"
        return Unresolved("EnvironmentVariableNotSet", message)
    return values[name]


def text_of(data: bytes, where: str, limit: int) -> str | Unresolved:
    """UTF-8 of at most ``limit`` characters as text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Unresolved("NotText", f"{where}: is not UTF-8 text")
    if len(text) > limit:
        return Unresolved("TextTooLong", f"{where}: has more than {limit} characters")
    return text
