"""Manifests: files, folders and standard input, read into documents that know where they stand.

What is read here is not trusted: sizes are limited, aliases may not multiply, only the tags of
JSON's types are understood.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from controller.resources.errors import Invalid
from controller.resources.yamldoc import Parsed, YamlError, parse, plain_number

MAX_FILE_BYTES = 8 * 1024 * 1024
SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "stdin"


class ManifestError(Exception):
    """A manifest cannot be read; the text names file, document and line, and what is wrong."""

    def __init__(self, source: str, message: str, *, document: int = 0, line: int = 0) -> None:
        super().__init__(f"{place(source, document, line)}: {message}")
        self.source = source
        self.document = document
        self.line = line


def place(source: str, document: int = 0, line: int = 0) -> str:
    """``quickstart.yaml:12 (document 2)``; what is zero is left out."""
    where = f"{source}:{line}" if line else source
    return f"{where} (document {document})" if document else where


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest."""

    source: str
    """The file as it was named, or ``stdin``."""
    index: int
    """Which document of the file, from 1; the items of a ``List`` share theirs."""
    line: int
    """Where it begins, from 1."""
    obj: dict[str, Any]
    base_dir: str
    """Folder that the manifest's relative paths start from, absolute."""
    parsed: Parsed = field(repr=False, compare=False)
    inside: str = ""
    """Where in the document the object stands: ``items[3]`` of a ``List``."""

    def line_of(self, path: str) -> int:
        """The line of a field such as ``spec.tasks[1].name``, or of what is nearest to it."""
        return self.parsed.line_of(f"{self.inside}.{path}" if self.inside and path else path)

    def explain(self, invalid: Invalid) -> str:
        """One line for each error, with its place in the file."""
        who = f"{invalid.kind}/{invalid.name}" if invalid.name else invalid.kind
        return "\n".join(
            f"{place(self.source, self.index, self.line_of(error.path))} {who}: {error}"
            for error in invalid.errors
        )


def load(
    paths: Sequence[str],
    stdin: IO[bytes] | None = None,
    recursive: bool = False,
    *,
    namespace: str = "default",
) -> list[Document]:
    """Read manifests in the order given.

    Args:
        paths: files, folders (their ``*.yaml``, ``*.yml`` and ``*.json``, sorted), ``-``.
        stdin: what ``-`` reads.
        recursive: look into subfolders too.
        namespace: of documents that name none; two objects of one name are refused.

    Raises: ManifestError (about the first thing that is wrong).
    """
    documents: list[Document] = []
    for path in paths:
        if path == "-":
            if stdin is None:
                raise ManifestError(STDIN, "there is nothing to read")
            text = _decode(STDIN, stdin.read(MAX_FILE_BYTES + 1))
            documents += _documents(STDIN, text, str(Path.cwd()))
            continue
        for file in _files(path, recursive):
            text = _decode(str(file), _read(file))
            documents += _documents(str(file), text, str(file.parent.absolute()))
    _refuse_doubles(documents, namespace)
    return documents


def _files(path: str, recursive: bool) -> Iterator[Path]:
    given = Path(path)
    if not given.is_dir():
        yield given
        return
    found = given.rglob("*") if recursive else given.iterdir()
    files = sorted(f for f in found if f.suffix in SUFFIXES and f.is_file())
    if not files:
        more = "" if recursive else "; subfolders are read with --recursive"
        raise ManifestError(path, f"the folder has no {', '.join(SUFFIXES)} files{more}")
    yield from files


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(str(file), "there is no such file or folder") from None
    except OSError as error:
        raise ManifestError(str(file), f"cannot be read: {error.strerror}") from None


def _decode(source: str, data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise ManifestError(source, f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ManifestError(source, "is not UTF-8 text", line=line) from None
    if not text.strip():
        raise ManifestError(
            source, "is empty; a manifest with apiVersion, kind, metadata and spec is expected"
        )
    return text


def _documents(source: str, text: str, base_dir: str) -> list[Document]:
    found: list[Document] = []
    try:
        for parsed in _parse(source, text):
            if parsed.value is not None:
                found += _objects(source, parsed, base_dir)
    except YamlError as error:
        raise ManifestError(
            source, error.message, document=error.document, line=error.line
        ) from None
    if not found:
        raise ManifestError(source, "has no documents, only comments or separators")
    return found


def _parse(source: str, text: str) -> Iterator[Parsed]:
    is_json = source.endswith(".json")
    if not is_json and not text.lstrip().startswith("{"):
        yield from parse(text)
        return
    # JSON may have tabs and surrogate escapes, which YAML does not understand.
    try:
        value = json.loads(
            text,
            object_pairs_hook=_no_doubles,
            parse_constant=_no_number,
            parse_float=_number,
        )
    except json.JSONDecodeError as error:
        if is_json:
            raise YamlError(f"is not JSON: {error.msg}", 1, error.lineno) from None
        yield from parse(text)
        return
    except RecursionError:
        raise YamlError("is nested too deeply", 1, 1) from None
    yield Parsed(value, 1, 1, None)


def _no_number(name: str) -> None:
    raise YamlError(f"{name} is not a number that JSON can carry", 1, 0)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _no_number(text)
    return plain_number(value)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise YamlError(f'the field "{key}" stands twice in one object', 1, 0)
        result[key] = value
    return result


def _objects(source: str, parsed: Parsed, base_dir: str) -> Iterator[Document]:
    value, number = parsed.value, parsed.index
    if not isinstance(value, dict):
        raise ManifestError(
            source,
            f"is {_kind_of(value)}, not an object with apiVersion, kind, metadata and spec",
            document=number,
            line=parsed.line,
        )
    if value.get("kind") != "List":
        yield Document(source, number, parsed.line, value, base_dir, parsed)
        return
    items = value.get("items")
    if not isinstance(items, list):
        line = parsed.line_of("items")
        raise ManifestError(source, "items: must be a list", document=number, line=line)
    for index, item in enumerate(items):
        inside = f"items[{index}]"
        line = parsed.line_of(inside)
        if not isinstance(item, dict):
            message = f"{inside}: is {_kind_of(item)}, not an object"
            raise ManifestError(source, message, document=number, line=line)
        yield Document(source, number, line, item, base_dir, parsed, inside)


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a text" if isinstance(value, str) else "a single value"


def _refuse_doubles(documents: Sequence[Document], namespace: str) -> None:
    first: dict[tuple[str, str, str], Document] = {}
    for document in documents:
        metadata = document.obj.get("metadata")
        if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
            continue
        where = metadata.get("namespace") or namespace
        key = (str(document.obj.get("kind")), str(where), metadata["name"])
        earlier = first.setdefault(key, document)
        if earlier is not document:
            there = place(earlier.source, earlier.index, earlier.line)
            message = f"{key[0]}/{key[2]} is already described in {there}; each object once"
            raise ManifestError(
                document.source, message, document=document.index, line=document.line
            )
