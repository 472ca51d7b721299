"""The question of one ``get``: which objects, in which namespace, with which labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING

from cli.errors import CliError
from cli.selectors import Predicate, Selection, by_labels, find, key
from cli.session import Session

if TYPE_CHECKING:
    from cli.client import Client, Watch
    from controller.resources.kinds import Kind
    from controller.store.base import Change, Key, Resource

Group = tuple["Kind", list["Resource"]]


class Query:
    """The question of one ``get``: asked once, or again and again."""

    def __init__(
        self,
        about: Session,
        selections: Sequence[Selection],
        all_namespaces: bool,
        predicate: Predicate | None,
    ) -> None:
        self.selections = selections
        self.all_namespaces = all_namespaces
        self._predicate = predicate
        self._namespace = about.namespace
        self._client: Client = about.client
        self.missing: list[str] = []
        """What was named and is not there, as messages."""

    def groups(self) -> list[Group]:
        """The objects by kind; names that are not there go to ``missing``."""
        return [(s.kind, by_labels(self._objects(s), self._predicate)) for s in self.selections]

    def changed(self, changes: Sequence[Change]) -> list[Group]:
        """Those of the objects that are among ``changes`` and still there."""
        found = []
        for selection in self.selections:
            keys = [change.key for change in changes if self._concerns(selection, change.key)]
            objects = [obj for wanted in keys if (obj := self._client.get(wanted)) is not None]
            found.append((selection.kind, by_labels(objects, self._predicate)))
        return found

    def _concerns(self, selection: Selection, wanted: Key) -> bool:
        return (
            wanted.kind == selection.kind.kind
            and (self.all_namespaces or wanted.namespace == self._namespace)
            and (selection.names is None or wanted.name in selection.names)
        )

    def _objects(self, selection: Selection) -> list[Resource]:
        if selection.names is None:
            space = None if self.all_namespaces else self._namespace
            return self._client.list(selection.kind.kind, space)
        found = []
        for name in selection.names:
            try:
                found.append(find(self._client, key(selection.kind, self._namespace, name)))
            except CliError as error:
                self.missing.append(str(error))
        return found

    def check(self) -> None:
        """Raises: CliError when something that was named is not there."""
        if self.missing:
            raise CliError("\nerror: ".join(self.missing))

    def nothing(self) -> str:
        """What is said when there is nothing."""
        if self.all_namespaces:
            return "No resources found"
        return f"No resources found in {self._namespace} namespace."

    def watch(self) -> AbstractContextManager[Watch]:
        """Begin to watch the home."""
        return closing(self._client.watch())
