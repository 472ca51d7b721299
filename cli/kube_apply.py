"""``apply`` in a cluster: kubectl's three-way merge, tried out on the server before it is done.

The server has no transaction over several objects.  So every document is sent with ``dryRun``
first, and nothing is written if one is refused.  What was applied last is noted on the object as
kubectl notes it: to both, an object that the other one applied is like one of their own.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from cli import last_applied
from cli.client import Applied
from cli.errors import FAILURE, UNAVAILABLE, CliError
from cli.file_apply import head_fault, not_on_its_way_out, schema_of
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
ATTEMPTS = 40
"""In some ten seconds: a status may be written many times a second."""
_MADE = ("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink")
"""What the server gives a new object; a dry run makes it up."""
_VERSIONS = ("resourceVersion", "generation")


class _Wish(NamedTuple):
    """One document, and the manifest that it is."""

    document: Document
    manifest: Resource

    @property
    def key(self) -> Key:
        return key_of(self.manifest)


class _Plan(NamedTuple):
    """What is to be sent for one document, given what is there now."""

    before: Resource | None
    wanted: Resource | None
    """None: it is there already."""

    def send(self, client: KubeClient, *, dry_run: bool) -> Resource:
        """The object as it is then. Raises: StoreError."""
        if self.wanted is None:
            assert self.before is not None
            return self.before
        if self.before is None:
            return client.post(self.wanted, dry_run=dry_run)
        return client.replace(self.wanted, dry_run=dry_run)


class _Result(NamedTuple):
    """What became of one document, or would become of it."""

    plan: _Plan
    after: Resource

    def told(self, key: Key, *, dry_run: bool) -> Applied:
        """The result as its caller wants it."""
        after = last_applied.without(self.after)
        if self.plan.before is None:
            return Applied(key, "created", None, _plain(after, _MADE) if dry_run else after)
        before = last_applied.without(self.plan.before)
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
    tried = _tried(client, wishes)
    faults = [fault for fault in (*heads, *tried) if isinstance(fault, str)]
    if faults:
        raise CliError("\n".join([*faults, "nothing was applied"]))
    results = [result for result in tried if isinstance(result, _Result)]
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


def _tried(client: KubeClient, wishes: Sequence[_Wish]) -> list[_Result | str]:
    """What would become of each document, or what is wrong with it.

    Only requests are made in threads: rules are evaluated in this one.

    Raises: StoreUnavailable.
    """
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        lives = pool.map(lambda wish: client.read(wish.key), wishes)
        plans = [_planned_or_fault(wish, live) for wish, live in zip(wishes, lives, strict=True)]
        answers = pool.map(lambda plan: _answer(client, plan), plans)
        return [
            answer if isinstance(answer, _Result | str) else _told_or_again(client, wish, answer)
            for wish, answer in zip(wishes, answers, strict=True)
        ]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is asked


def _planned_or_fault(wish: _Wish, live: Resource | None) -> _Plan | str:
    try:
        return _planned(wish, live)
    except Invalid as invalid:
        return wish.document.explain(invalid)


def _answer(client: KubeClient, plan: _Plan | str) -> _Result | StoreError | str:
    """What the server says to a plan; a fault stays one. Raises: StoreUnavailable."""
    if isinstance(plan, str):
        return plan
    try:
        return _Result(plan, plan.send(client, dry_run=True))
    except StoreUnavailable:
        raise
    except StoreError as error:
        return error


def _told_or_again(client: KubeClient, wish: _Wish, error: StoreError) -> _Result | str:
    """The server's refusal in words; or another attempt, where somebody was faster."""
    if isinstance(error, Conflict | AlreadyExists):
        try:
            return _carry_out(client, wish, _planned(wish, client.read(wish.key)), dry_run=True)
        except Invalid as invalid:
            return wish.document.explain(invalid)
        except StoreUnavailable:
            raise
        except StoreError as again:
            error = again
    return wish.document.explain(explained(wish.key, error))


def _written(
    client: KubeClient, wishes: Sequence[_Wish], tried: Sequence[_Result]
) -> list[_Result]:
    """Write what is different, one document after the other. Raises: CliError."""
    done: list[_Result] = []
    for number, (wish, trial) in enumerate(zip(wishes, tried, strict=True)):
        try:
            done.append(_carry_out(client, wish, trial.plan, dry_run=False))
        except (StoreError, Invalid) as error:
            code = UNAVAILABLE if isinstance(error, StoreUnavailable) else FAILURE
            so_far = f"{number} of {len(wishes)} objects were" if number else "nothing was"
            text = f"{wish.key}: {error}\n{so_far} applied before; apply again goes on from there"
            raise CliError(text, code) from error
    return done


def _carry_out(client: KubeClient, wish: _Wish, plan: _Plan, *, dry_run: bool) -> _Result:
    """Send a plan, and plan anew if somebody was faster.

    Raises: Invalid, StoreError.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return _Result(plan, plan.send(client, dry_run=dry_run))
        except (Conflict, AlreadyExists):
            time.sleep(random.uniform(0, min(0.5, 0.01 * 2**attempt)))
        except NotFound:
            if plan.before is None:
                raise  # it is its namespace that is missing
        plan = _planned(wish, client.read(wish.key))
    return _Result(plan, plan.send(client, dry_run=dry_run))


def _planned(wish: _Wish, live: Resource | None) -> _Plan:
    """Merge, check as the file home does, and see whether anything is different.

    Raises: Invalid.
    """
    schema = schema_of(wish.document)
    merged = merge_resource(last_applied.of(live), wish.manifest, live, schema)
    not_on_its_way_out(live)
    admitted = admit(copy.deepcopy(merged), live)
    if not kinds.get(wish.key.kind).group:
        merged = admitted  # a Secret's stringData is folded into its data, as the server does
    for obj in (merged, admitted):
        last_applied.note(obj, wish.manifest, live, schema)
    same = live is not None and _plain(admitted, ()) == _plain(live, ())
    return _Plan(live, None if same else merged)


def _plain(obj: Resource, left_out: Sequence[str]) -> dict[str, Any]:
    """What is compared of an object: no status, and no fields of its metadata that are left out."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in left_out}
    return {**{k: v for k, v in obj.items() if k != "status"}, "metadata": metadata}
