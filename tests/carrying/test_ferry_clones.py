"""The workers' side clones by itself what it may, instead of being sent it."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from providers.base import ProviderError
from tests.carrying.graphs import bundle_of, objects
from tests.carrying.trip import HANDLE
from tests.lab import git


@contextmanager
def served(folder: Path):
    """A web server for a folder (git's dumb protocol); its URL."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web(trip, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    git("-C", str(trip.user), "update-server-info")
    with served(trip.user.parent) as url:
        trip.url = f"{url}/user.git"
        yield url


def test_what_can_be_cloned_there_is_not_sent(trip, web):
    asyncio.run(trip.send(1))
    assert "clone" in trip.stores.calls and "put" not in trip.stores.calls
    assert objects(trip.there, trip.commits[1])
    assert not trip.ours.exists()


def test_what_cannot_be_cloned_there_is_sent_and_not_asked_for_again(trip, web):
    async def clone(*_):
        trip.stores.calls.append("clone")
        raise ProviderError("CloneFailed", "no way out of the cluster")

    trip.stores.clone = clone

    async def twice():
        await trip.send(0)
        await trip.send(1)

    asyncio.run(twice())
    assert trip.stores.calls.count("clone") == 1
    assert objects(trip.there, trip.commits[1])


def test_a_clone_that_is_refused_says_why(trip, web):
    trip.url = f"{web}/nothing.git"

    async def once():
        with pytest.raises(ProviderError) as caught:
            await trip.stores.clone(HANDLE, "p-uid.git", trip.url, "c0", trip.commits[0])
        assert caught.value.reason == "CloneFailed"
        assert "cannot be read from the login host" in str(caught.value)

    asyncio.run(once())
    assert bundle_of(trip.user, trip.user.parent / "b", [trip.commits[0]], []).exists()
