"""Whether a controller serves a cluster's namespace, as its Lease tells; none is started here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cli.client import ControllerState
from cli.table import clean
from controller.store.base import Forbidden, NotFound
from controller.store.kube_rest import path_of

if TYPE_CHECKING:
    from cli.kube_server import Server

VARIABLE = "CODESWARM_CONTROLLER_NAMESPACE"
NAMESPACE = "codeswarm"
"""Where the manifests put the controller."""
LEASE = "codeswarm-controller"
EPOCH = "codeswarm.dev/epoch"
GRACE_SECONDS = 10.0
"""A Lease counts so long beyond its end, for clocks that differ."""


def namespace() -> str:
    """Where the controller is, as far as the environment says."""
    return os.environ.get(VARIABLE) or NAMESPACE


class Controller:
    """The controller of a namespace.

    Args:
        server: the API server.
        served: the namespace whose controller is meant; a process outside the cluster has its
            Lease there.
    """

    def __init__(self, server: Server, served: str) -> None:
        self._server = server
        self._served = served
        self._said = False

    def state(self) -> ControllerState:
        """What the Leases tell.

        Raises: StoreUnavailable.
        """
        found, hidden = "", False
        for space in dict.fromkeys(self._namespaces()):
            try:
                answer = self._server.send("GET", path_of("Lease", space, LEASE))
                if answer.status >= 400:
                    raise self._server.refused(answer)
            except NotFound:
                continue
            except Forbidden:
                hidden = True
                continue
            running, text = _judge(answer.json(), space, _now(answer.headers))
            if running:
                return ControllerState(True, text)
            found = found or text
        if hidden:
            text = "not known: its Lease may not be read with these rights"
            return ControllerState(True, text)
        return ControllerState(False, found or _none(), remedy(self._server.place.context))

    def identities(self) -> frozenset[str]:
        """By which names its home may have marked machines elsewhere: the uids of its namespace
        and of its Lease; those that may be read.

        Raises: StoreUnavailable.
        """
        found = set()
        for space in dict.fromkeys(self._namespaces()):
            for path in (f"/api/v1/namespaces/{space}", path_of("Lease", space, LEASE)):
                with suppress(NotFound, Forbidden):
                    found.add(str(self._server.request("GET", path)["metadata"]["uid"]))
        return frozenset(found)

    def _namespaces(self) -> Iterator[str]:
        """Where its Lease may be, the likeliest first."""
        if os.environ.get(VARIABLE):
            yield namespace()
            return
        yield NAMESPACE
        yield self._served
        yield self._server.place.namespace

    def ensure(self, say: Callable[[str], None]) -> None:
        """Say so, once, if none seems to run."""
        if self._said:
            return
        state = self.state()
        if not state.running:
            self._said = True
            say(f"no controller seems to run ({state.detail}); {state.remedy}")


def remedy(context: str) -> str:
    """What to do when no controller runs in a cluster."""
    return f"look at it with `{kubectl(context)} get deployment,pods`"


def kubectl(context: str) -> str:
    """The beginning of a command for where the controller is."""
    return f"kubectl --context {context} -n {namespace()}"


def _none() -> str:
    return f"there is no Lease {LEASE} in namespace {namespace()}"


def _judge(lease: Mapping[str, Any], space: str, now: datetime) -> tuple[bool, str]:
    """Whether its holder is at work, and what is to be said of it."""
    spec = lease.get("spec") or {}
    holder = clean(str(spec.get("holderIdentity") or ""))
    if not holder:
        return False, f"the Lease in namespace {space} is given up"
    renewed = _time(str(spec.get("renewTime") or ""))
    seconds = float(spec.get("leaseDurationSeconds") or 15)
    if renewed is None or (now - renewed).total_seconds() > seconds + GRACE_SECONDS:
        since = f"{renewed:%Y-%m-%dT%H:%M:%SZ}" if renewed else "its beginning"
        return False, f"{holder} has not renewed its Lease since {since}"
    epoch = (lease["metadata"].get("annotations") or {}).get(EPOCH, "?")
    return True, f"{holder} in namespace {space}, epoch {clean(str(epoch))}"


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _now(headers: Mapping[str, str]) -> datetime:
    """The server's time: this machine's clock may be wrong."""
    try:
        found = parsedate_to_datetime(headers.get("Date") or "")
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
