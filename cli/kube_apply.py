"""``apply`` in a cluster: kubectl's three-way merge, tried out on the server before it is done.

The server has no transaction over several objects.  So every document is sent with ``dryRun``
first, and nothing is written if one is refused.  What was applied last is noted on the object as
kubectl notes it: to both, an object that the other one applied is like one of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cli import last_applied
from cli.client import Applied
from cli.errors import FAILURE, UNAVAILABLE, CliError
from cli.file_apply import head_fault, schema_of
from cli.kube_faults import explained
from controller.resources import kinds
from controller.resources.admission import admit
from controller.resources.errors import Invalid
from controller.resources.manifest import Document
from controller.store.applied import manifest_of, merge_resource
from controller.store.base import (
    AlreadyExists,
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreError,
    StoreUnavailable,
    key_of,
)

if TYPE_CHECKING:
    from cli.kube_client import KubeClient

AT_ONCE = 8
"""Documents that are tried out at the same time."""
ATTEMPTS = 10
_MADE = ("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink")
"""What the server gives a new object; a dry run makes it up."""
_VERSIONS = ("resourceVersion", "generation")

Action = Literal["created", "configured", "unchanged"]


class _Wish(NamedTuple):
    """One document, and the manifest that it is."""

    document: Document
    manifest: Resource

    @property
    def key(self) -> Key:
        return key_of(self.manifest)


class _Result(NamedTuple):
    """What became of one document, or would become of it."""

    before: Resource | None
    after: Resource
    writes: bool
    """Whether there was something to send."""

    def told(self, key: Key, *, dry_run: bool) -> Applied:
        after = last_applied.without(self.after)
        if self.before is None:
            return Applied(key, "created", None, _plain(after, _MADE) if dry_run else after)
        before = last_applied.without(self.before)
        same = _plain(before, _VERSIONS) == _plain(after, _VERSIONS)
        return Applied(key, "unchanged" if same else "configured", before, after)


def apply(
    client: KubeClient, documents: Sequence[Document], *, namespace: str, dry_run: bool
) -> list[Applied]:
    """As ``cli.client.Client.apply``.

    Raises: CliError that names every fault of every document.
    """
    heads = [head_fault(document) for document in documents]
    wishes = [
        _Wish(document, _prepared(document, namespace))
        for document, fault in zip(documents, heads, strict=True)
        if fault is None
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tried = list(pool.map(lambda wish: _tried(client, wish), wishes))
    faults = [fault for fault in (*heads, *tried) if isinstance(fault, str)]
    if faults:
        raise CliError("\n".join([*faults, "nothing was applied"]))
    results = [result for result in tried if not isinstance(result, str)]
    if not dry_run:
        results = _written(client, wishes, results)
    return [
        result.told(wish.key, dry_run=dry_run) for wish, result in zip(wishes, results, strict=True)
    ]


def _prepared(document: Document, namespace: str) -> Resource:
    """The manifest with its namespace, and without what kubectl or we may have noted in it."""
    metadata = dict(document.obj["metadata"])
    metadata["namespace"] = metadata.get("namespace") or namespace
    return last_applied.without(manifest_of({**document.obj, "metadata": metadata}))


def _tried(client: KubeClient, wish: _Wish) -> _Result | str:
    """What would become of one document; or what is wrong with it. Raises: StoreUnavailable."""
    try:
        return _carry_out(client, wish, client.read(wish.key), dry_run=True)
    except Invalid as invalid:
        return wish.document.explain(invalid)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return wish.document.explain(explained(wish.key, error))


def _written(
    client: KubeClient, wishes: Sequence[_Wish], tried: Sequence[_Result]
) -> list[_Result]:
    """Write what is different, one document after the other. Raises: CliError."""
    done: list[_Result] = []
    for number, (wish, trial) in enumerate(zip(wishes, tried, strict=True)):
        if not trial.writes:
            done.append(trial)
            continue
        try:
            done.append(_carry_out(client, wish, trial.before, dry_run=False))
        except (StoreError, Invalid) as error:
            code = UNAVAILABLE if isinstance(error, StoreUnavailable) else FAILURE
            so_far = f"{number} of {len(wishes)} objects were" if number else "nothing was"
            text = f"{wish.key}: {error}\n{so_far} applied before; apply again goes on from there"
            raise CliError(text, code) from error
    return done


def _carry_out(client: KubeClient, wish: _Wish, live: Resource | None, *, dry_run: bool) -> _Result:
    """Merge and send, and do so again if somebody was faster.

    Raises: Invalid, StoreError.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _sent(client, wish, live, dry_run=dry_run)
        except (Conflict, AlreadyExists):
            live = client.read(wish.key)
        except NotFound:
            if live is None:
                raise  # it is its namespace that is missing
            live = client.read(wish.key)
    return _sent(client, wish, live, dry_run=dry_run)


def _sent(client: KubeClient, wish: _Wish, live: Resource | None, *, dry_run: bool) -> _Result:
    schema = schema_of(wish.document)
    merged = merge_resource(last_applied.of(live), wish.manifest, live, schema)
    admitted = admit(copy.deepcopy(merged), live)
    if not kinds.get(wish.key.kind).group:
        merged = admitted  # a Secret's stringData is folded into its data, as the server does
    for obj in (merged, admitted):
        last_applied.note(obj, wish.manifest, live, schema)
    if live is None:
        return _Result(None, client.post(merged, dry_run=dry_run), True)
    if _plain(admitted, ()) == _plain(live, ()):
        return _Result(live, live, False)
    return _Result(live, client.replace(merged, dry_run=dry_run), True)


def _plain(obj: Resource, left_out: Sequence[str]) -> dict[str, Any]:
    """What is compared of an object: no status, and no fields of its metadata that are left out."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in left_out}
    return {**{k: v for k, v in obj.items() if k != "status"}, "metadata": metadata}
