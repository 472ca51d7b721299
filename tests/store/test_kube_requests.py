"""Requests to an API server: what is sent, and what is not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from controller.store import kube_api
from controller.store.base import Key, StoreUnavailable
from controller.store.kube_api import Api, connect

A = Key("Task", "default", "a")
OPERATIONS = [{"op": "add", "path": "/status", "value": {}}]


def drive(path: Path, test: Callable[[Api, list[web.Request]], Awaitable[None]]) -> None:
    """Run a test with a server that takes every request, and keeps it."""

    async def run() -> None:
        taken: list[web.Request] = []

        async def serve(request: web.Request) -> web.Response:
            await request.read()
            taken.append(request)
            return web.json_response({"kind": "Task", "metadata": {"name": "a"}})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        config = path / "kubeconfig"
        config.write_text(yaml.safe_dump(kubeconfig(runner.addresses[0][1])))
        api = await connect(str(config))
        try:
            await asyncio.wait_for(test(api, taken), 20)  # type: ignore[arg-type]
        finally:
            await api.close()
            await runner.cleanup()

    asyncio.run(run())


def kubeconfig(port: int) -> dict[str, object]:
    cluster = {"server": f"http://127.0.0.1:{port}"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": cluster}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }


def test_a_lease_that_is_lost_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was held when the write was begun; the process may have slept since."""
    monkeypatch.setattr(kube_api, "FIRST_PAUSE", 0.01)

    async def test(api: Api, taken: list[web.Request]) -> None:
        asked = []

        def check() -> None:
            asked.append(1)
            if len(asked) > 1:
                raise StoreUnavailable("it is not held (any more)")

        for write in (
            lambda: api.patch(A, OPERATIONS, "status", check),
            lambda: api.create({"kind": "Task", "metadata": {"namespace": "default"}}, check),
            lambda: api.delete(A, None, check),
        ):
            asked.clear()
            with pytest.raises(StoreUnavailable, match="not held"):
                await write()
        assert taken == []
        await api.get(A)
        await api.patch(A, OPERATIONS, "status")
        assert [request.method for request in taken] == ["GET", "PATCH"]

    drive(tmp_path, test)


def test_a_busy_server_is_asked_again_and_the_lease_before_that(tmp_path: Path) -> None:
    async def test(api: Api, taken: list[web.Request]) -> None:
        asked: list[int] = []
        await api.patch(A, OPERATIONS, "status", lambda: asked.append(1))
        assert len(asked) == 2, "before it is begun, and before its first byte"

    drive(tmp_path, test)
