"""The controller's HTTP service without the controller, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Self

from controller.http.auth import Authenticator, OneToken
from controller.http.health import Health
from controller.http.kube_auth import KubeAuth
from controller.http.listen import listen, port_of
from controller.http.monitor import Monitor
from controller.http.service import Service
from controller.store.kube_api import connect

Auth = Callable[[], AbstractAsyncContextManager[Authenticator]]


def one_token(token: str) -> Auth:
    """Who has this token may read."""

    @asynccontextmanager
    async def auth() -> AsyncIterator[Authenticator]:
        yield OneToken(token)

    return auth


def by_cluster(kubeconfig: str) -> Auth:
    """The API server decides, asked with these credentials."""

    @asynccontextmanager
    async def auth() -> AsyncIterator[Authenticator]:
        api = await connect(kubeconfig)
        try:
            yield KubeAuth(api)
        finally:
            await api.close()

    return auth


class ControllerHttp:
    """Serves transcripts below a folder while it is entered."""

    def __init__(self, transcripts: Path, auth: Auth, host: str = "127.0.0.1", port: int = 0):
        self._transcripts = transcripts
        self._auth = auth
        self._sock = listen(host, port)
        self.port = port_of(self._sock)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        async with self._auth() as authenticator:
            service = Service(
                health=Health(lambda: (True, "")),
                monitor=Monitor(),
                authenticator=authenticator,
                transcripts=self._transcripts,
            )
            await service.start(self._sock)
            await self._stop.wait()
            await service.stop()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


def write(root: Path, namespace: str, folder: str, job: str, text: bytes) -> Path:
    """Append to a transcript; its path."""
    path = root / namespace / folder / f"{job}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(text)
    return path
