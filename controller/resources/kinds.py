"""The kinds there are, read from the CRDs: names, short names and printer columns.

Listing all kinds is on the path of every CLI call, so only the head of each CRD is parsed for
it (the schema is the last key of a CRD's version, a test keeps it so); the whole file is
parsed when its schema is asked for.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from controller.resources.yamlio import load_trusted

GROUP = "codeswarm.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "codeswarm"


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column of a kind."""

    name: str
    type: str
    """``string``, ``integer``, ``number``, ``boolean`` or ``date``."""
    path: str
    """JSONPath from the object, e.g. ``.status.phase``."""
    priority: int = 0
    """Above zero: only in wide output."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    group: str
    """Empty for the core kinds."""
    version: str
    namespaced: bool
    columns: tuple[Column, ...]
    categories: tuple[str, ...] = ()
    has_status: bool = False

    @property
    def api_version(self) -> str:
        """As manifests say it: ``codeswarm.dev/v1alpha1``, ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Plural and group, as in ``projects.codeswarm.dev``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


class UnknownKind(Exception):
    """No kind has this name; the text says which are near."""


_AGE = Column("AGE", "date", ".metadata.creationTimestamp")
_TYPE = Column("TYPE", "string", ".type")
_CORE = (
    Kind("Secret", "secrets", "secret", (), "", "v1", True, (_TYPE, _AGE)),
    Kind("ConfigMap", "configmaps", "configmap", ("cm",), "", "v1", True, (_AGE,)),
)
_ORDER = ("Swarm", "SwarmClass", "Project", "Task", "Approval")
_SCHEMA_KEY = "\n      schema:\n"


def _crd_files() -> list[Traversable]:
    folder = files("crds")
    return sorted(
        (f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name
    )


@cache
def kinds() -> tuple[Kind, ...]:
    """All kinds: our own in a fixed order, then Secret and ConfigMap."""
    own = [_from_head(file) for file in _crd_files()]
    own.sort(key=lambda k: _ORDER.index(k.kind) if k.kind in _ORDER else len(_ORDER))
    return (*own, *_CORE)


def _from_head(file: Traversable) -> Kind:
    head = file.read_text(encoding="utf-8").partition(_SCHEMA_KEY)[0]
    spec = load_trusted(head)["spec"]
    names, version = spec["names"], spec["versions"][0]
    return Kind(
        kind=names["kind"],
        plural=names["plural"],
        singular=names["singular"],
        short_names=tuple(names.get("shortNames", ())),
        group=spec["group"],
        version=version["name"],
        namespaced=spec["scope"] == "Namespaced",
        columns=tuple(_column(c) for c in version.get("additionalPrinterColumns", ())),
        categories=tuple(names.get("categories", ())),
        has_status="status" in version.get("subresources", {}),
    )


def _column(raw: dict[str, Any]) -> Column:
    return Column(
        name=raw["name"],
        type=raw["type"],
        path=raw["jsonPath"],
        priority=raw.get("priority", 0),
        description=raw.get("description", ""),
    )


@cache
def _by_word() -> dict[str, Kind]:
    words: dict[str, Kind] = {}
    for kind in kinds():
        for word in (kind.kind.lower(), kind.plural, kind.singular, *kind.short_names):
            words[word] = kind
            words[f"{word}.{kind.group}" if kind.group else f"{word}.v1"] = kind
            if kind.group:
                words[f"{word}.{kind.version}.{kind.group}"] = kind
    return words


def get(kind: str) -> Kind:
    """The kind of exactly this name, e.g. ``Project``. Raises: UnknownKind."""
    for known in kinds():
        if known.kind == kind:
            return known
    raise UnknownKind(_unknown(kind))


def resolve(word: str) -> Kind:
    """The kind that a person means: ``proj``, ``projects``, ``Project``, ``project.codeswarm.dev``.

    Raises: UnknownKind.
    """
    found = _by_word().get(word.lower())
    if found is None:
        raise UnknownKind(_unknown(word))
    return found


def expand(words: str) -> list[Kind]:
    """The kinds of a list with commas; a category stands for its kinds. Raises: UnknownKind."""
    result: list[Kind] = []
    for word in words.split(","):
        in_category = [k for k in kinds() if word.lower() in k.categories]
        result += in_category or [resolve(word)]
    return list(dict.fromkeys(result))


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), _by_word(), n=1, cutoff=0.6)
    hint = f'; did you mean "{_by_word()[near[0]].kind}"?' if near else ""
    known = ", ".join(k.kind for k in kinds())
    return f'there is no kind "{word}"{hint} (known: {known})'


@cache
def crd(kind: str) -> dict[str, Any]:
    """The whole CRD of one of our own kinds; shared, not to be changed. Raises: UnknownKind."""
    plural = get(kind).plural
    parsed: dict[str, Any] = load_trusted((files("crds") / f"{plural}.yaml").read_text("utf-8"))
    return parsed


def open_api_schema(kind: str) -> dict[str, Any]:
    """``openAPIV3Schema`` of one of our own kinds; shared, not to be changed.

    Raises: UnknownKind.
    """
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema
