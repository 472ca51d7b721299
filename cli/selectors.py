"""Which objects a command line means: ``KIND NAME...``, ``KIND/NAME...``, ``-l`` selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.errors import CliError, suggestion
from controller.resources import kinds as registry
from controller.store.base import Forbidden, Key

if TYPE_CHECKING:
    from cli.client import Client
    from controller.resources.kinds import Kind
    from controller.store.base import Resource

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects of one kind: some by name, or all."""

    kind: Kind
    names: tuple[str, ...] | None = None


def kind_of(word: str) -> Kind:
    """The kind that a person means.

    Raises: CliError, with close matches.
    """
    try:
        return registry.resolve(word)
    except registry.UnknownKind as error:
        raise CliError(str(error)) from None


def kinds_of(words: str) -> list[Kind]:
    """The kinds of a list with commas; ``all`` stands for all of ours."""
    found: dict[Kind, None] = {}
    for word in words.split(","):
        if not word:
            raise CliError(f'"{words}" is no list of kinds')
        if word.lower() in ("all", registry.CATEGORY):
            found |= dict.fromkeys(registry.expand(registry.CATEGORY))
        else:
            found[kind_of(word)] = None
    return list(found)


def parse(arguments: Sequence[str]) -> list[Selection]:
    """Selections of ``swarms,tasks``, ``task a b`` or ``task/a swarm/b``.

    Raises: CliError.
    """
    if any("/" in word for word in arguments):
        return _slashed(arguments)
    names = tuple(dict.fromkeys(arguments[1:])) or None
    return [Selection(kind, names) for kind in kinds_of(arguments[0])]


def _slashed(arguments: Sequence[str]) -> list[Selection]:
    names: dict[Kind, list[str]] = {}
    for word in arguments:
        kind, name = slashed(word)
        names.setdefault(kind, []).append(name)
    return [Selection(kind, tuple(dict.fromkeys(found))) for kind, found in names.items()]


def slashed(word: str) -> tuple[Kind, str]:
    """Kind and name of ``kind/name``.

    Raises: CliError.
    """
    kind, slash, name = word.partition("/")
    if not slash or not kind or not name or "/" in name:
        raise CliError(f'"{word}" is not of the form KIND/NAME, such as task/greeter.docs')
    return kind_of(kind), name


def one(words: Sequence[str], default: str | None = None) -> tuple[Kind, str]:
    """The one object of ``KIND/NAME``, ``KIND NAME``, or ``NAME`` where a default kind is given.

    Raises: CliError.
    """
    if len(words) == 2 and "/" not in words[0]:
        return kind_of(words[0]), words[1]
    if len(words) == 1 and "/" in words[0]:
        return slashed(words[0])
    if len(words) == 1 and default is not None:
        return registry.get(default), words[0]
    raise CliError("name one object, as KIND/NAME (such as task/greeter.docs)")


NAMED = ("Task", "Project", "Swarm")
"""Kinds whose objects may be named without it, where one name means one object."""


def is_kind(word: str) -> bool:
    """Whether a word names a kind."""
    try:
        registry.resolve(word)
    except registry.UnknownKind:
        return False
    return True


def pick(client: Client, namespace: str, words: Sequence[str], among: Sequence[str] = NAMED) -> Key:
    """The one object of ``KIND/NAME``, ``KIND NAME``, or of a ``NAME`` that only one has.

    Raises: CliError.
    """
    if len(words) != 1 or "/" in words[0]:
        kind, name = one(words)
        return Key(kind.kind, namespace, name)
    name = words[0]
    found, hidden = [], []
    for wanted in (Key(kind, namespace, name) for kind in among):
        try:
            found += [wanted] if client.get(wanted) is not None else []
        except Forbidden as error:
            hidden.append(error)
    if len(found) > 1:
        several = " or ".join(map(str, found))
        raise CliError(f'"{name}" is the name of several objects: say {several}')
    if found:
        return found[0]
    if hidden:
        raise hidden[0]
    known = [o["metadata"]["name"] for kind in among for o in _readable(client, kind, namespace)]
    kinds = ", ".join(kind.lower() for kind in among)
    raise CliError(
        f'nothing in namespace "{namespace}" has the name "{name}" ({kinds})'
        f"{suggestion(name, known)}"
    )


def _readable(client: Client, kind: str, namespace: str) -> Sequence[Resource]:
    try:
        return client.list(kind, namespace)
    except Forbidden:
        return []


def parse_named(client: Client, namespace: str, arguments: Sequence[str]) -> list[Selection]:
    """As ``parse``; a single ``NAME`` that is no kind means the one object that has it.

    Raises: CliError.
    """
    single = len(arguments) == 1 and not set("/,") & set(arguments[0])
    if single and arguments[0] not in ("all", registry.CATEGORY) and not is_kind(arguments[0]):
        found = pick(client, namespace, arguments)
        return [Selection(registry.get(found.kind), (found.name,))]
    return parse(arguments)


def key(kind: Kind, namespace: str, name: str) -> Key:
    """Key of an object by name."""
    return Key(kind.kind, namespace, name)


def find(client: Client, wanted: Key) -> Resource:
    """The object.

    Raises: CliError when there is none, with close matches.
    """
    obj = client.get(wanted)
    if obj is None:
        raise not_found(client, wanted)
    return obj


def not_found(client: Client, wanted: Key) -> CliError:
    """The error for a name that no object has."""
    found = _readable(client, wanted.kind, wanted.namespace)
    known = [obj["metadata"]["name"] for obj in found]
    hint = suggestion(wanted.name, known)
    kind = registry.get(wanted.kind).singular
    return CliError(f'{kind} "{wanted.name}" not found in namespace "{wanted.namespace}"{hint}')


def reference(kind: str, name: str) -> str:
    """``swarm.codeswarm.dev/builders``."""
    found = registry.get(kind)
    return f"{found.singular}{'.' + found.group if found.group else ''}/{name}"


_SET = re.compile(r"^([\w./-]+)\s+(in|notin)\s+\(([^()]*)\)$")
_EQUAL = re.compile(r"^([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)$")
_EXISTS = re.compile(r"^(!?)\s*([\w./-]+)$")


def label_predicate(text: str | None) -> Predicate | None:
    """A label selector as Kubernetes writes it: ``a=b,c!=d,e in (x,y),f,!g``.

    Raises: CliError.
    """
    if not text:
        return None
    parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)]
    tests = [_requirement(part) for part in parts]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(part: str) -> Predicate:
    if match := _SET.match(part):
        name, word = match[1], match[2]
        values = {value.strip() for value in match[3].split(",")}
        return lambda labels: (labels.get(name) in values) == (word == "in")
    if match := _EQUAL.match(part):
        name, operator, value = match.groups()
        return lambda labels: (labels.get(name) == value) == (operator != "!=")
    if match := _EXISTS.match(part):
        absent, name = match.groups()
        return lambda labels: (name in labels) != bool(absent)
    raise CliError(f'cannot read the label selector at "{part}"')


def by_labels(objects: Iterable[Resource], predicate: Predicate | None) -> list[Resource]:
    """The objects whose labels fit."""
    if predicate is None:
        return list(objects)
    return [obj for obj in objects if predicate(obj["metadata"].get("labels") or {})]
