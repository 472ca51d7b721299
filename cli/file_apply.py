"""``apply`` in the file home: every document is admitted before the first one is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.client import Applied
from cli.errors import CliError
from controller.resources import kinds
from controller.resources.admission import admit, head_errors
from controller.resources.errors import FieldError, Invalid
from controller.resources.manifest import Document
from controller.store.apply import ApplyRequest
from controller.store.base import Key, Resource, key_of
from controller.store.database import Database

BASE_DIR = "codeswarm.dev/base-dir"


def apply(
    database: Database, documents: Sequence[Document], *, namespace: str, dry_run: bool
) -> list[Applied]:
    """As ``cli.client.Client.apply``.

    Raises: CliError that names every fault of every document.
    """
    admission = _Admission(len(documents))
    requests = [
        ApplyRequest(prepared(document, namespace), admission.of(document), schema_of(document))
        for document in documents
        if admission.storable(document)
    ]
    admission.expect(len(requests))
    applied = database.apply_many(requests, dry_run=dry_run)
    return [
        Applied(
            key_of(one.resource),
            one.action,
            admission.before.get(key_of(one.resource)),
            one.resource,
        )
        for one in applied
    ]


def prepared(document: Document, namespace: str) -> Resource:
    """A document's object with its namespace, and the folder of its manifest noted."""
    metadata = dict(document.obj["metadata"])
    metadata["namespace"] = metadata.get("namespace") or namespace
    if kinds.get(document.obj["kind"]).group:
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            BASE_DIR: document.base_dir,
        }
    return {**document.obj, "metadata": metadata}


def schema_of(document: Document) -> dict[str, Any] | None:
    """The schema of a document's kind, which tells how its lists are merged."""
    kind = kinds.get(document.obj["kind"])
    return kinds.open_api_schema(kind.kind) if kind.group else None


def head_fault(document: Document) -> str | None:
    """What is wrong with a document whose object cannot even be looked up; None: nothing."""
    obj = document.obj
    known = {kind.kind: kind.api_version for kind in kinds.kinds()}
    kind = obj.get("kind")
    if isinstance(kind, str) and known.get(kind) == obj.get("apiVersion") and not head_errors(obj):
        return None
    try:
        admit(obj)
    except Invalid as invalid:
        return document.explain(invalid)
    raise AssertionError("admission takes what has no name")


def not_on_its_way_out(live: Resource | None) -> None:
    """Raises: Invalid for an object that is being deleted: what is written to it goes with it."""
    if live is None or "deletionTimestamp" not in live["metadata"]:
        return
    name = live["metadata"]["name"]
    text = (
        "is being deleted; apply again when it is gone: "
        f"codeswarm wait --for=delete {live['kind'].lower()}/{name} --timeout 10m"
    )
    raise Invalid(live["kind"], name, [FieldError("metadata.name", text)])


class _Admission:
    """Collects what is wrong with any document; raises it all with the last one."""

    def __init__(self, documents: int) -> None:
        self.before: dict[Key, Resource | None] = {}
        self._faults: list[str] = []
        self._left = documents

    def storable(self, document: Document) -> bool:
        """Whether kind and metadata are good enough to look the object up."""
        fault = head_fault(document)
        if fault is not None:
            self._faults.append(fault)
        return fault is None

    def expect(self, requests: int) -> None:
        """So many documents will be admitted; with none, what is wrong is raised at once."""
        self._left = requests
        if not requests:
            self._raise()

    def of(self, document: Document) -> Any:
        """The admission of one document."""

        def admit_one(merged: Resource, live: Resource | None) -> Resource:
            self.before[key_of(merged)] = live
            result = merged
            try:
                not_on_its_way_out(live)
                result = admit(merged, live)
            except Invalid as invalid:
                self._faults.append(document.explain(invalid))
                result = {**{k: merged[k] for k in ("apiVersion", "kind", "metadata")}, "spec": {}}
            self._left -= 1
            if self._left <= 0:
                self._raise()
            return result

        return admit_one

    def _raise(self) -> None:
        if self._faults:
            raise CliError("\n".join([*self._faults, "nothing was applied"]))
