"""A bare client in a process of its own: creates Tasks, and patches the status of each.

It is what the controller is compared with, and who creates the tasks that the controller works
on.  The client library carries the requests as in the controller (``kubernetes.aio``), and
nothing else is done: bodies are text already, answers are read and thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config

from controller.store.kube_rest import JSON_PATCH, path_of
from tests.lab import prompt


class Refused(Exception):
    """A request had no success: nothing is measured then."""


class Bare:
    """Requests over one pool of connections, as many at a time as it has tasks."""

    def __init__(self, session: aiohttp.ClientSession, host: str, headers: dict[str, str]) -> None:
        self._session = session
        self._host = host
        self._headers = headers

    async def send(self, method: str, path: str, body: str, type_: str) -> None:
        """One request; anything but success ends the measurement."""
        headers = {**self._headers, "Content-Type": type_}
        async with self._session.request(
            method, f"{self._host}{path}", data=body, headers=headers
        ) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise Refused(f"{method} {path}: {answer.status}: {text[:300]!r}")


async def life(bare: Bare, namespace: str, name: str, body: str, patches: Sequence[str]) -> None:
    """Create one object, then patch its status, one write after another."""
    await bare.send("POST", path_of("Task", namespace), body, "application/json")
    path = path_of("Task", namespace, name, "status")
    for patch in patches:
        await bare.send("PATCH", path, patch, JSON_PATCH)


async def run(options: argparse.Namespace) -> None:
    """Connect, say so, wait for the word, work, and print the seconds and CPU seconds."""
    text = Path(options.statuses).read_text() if options.statuses else "[]"
    statuses: list[Any] = json.loads(text)
    patches = [
        json.dumps([{"op": "add", "path": "/status", "value": status}]) for status in statuses
    ]
    numbers = iter(range(options.first, options.last))
    configuration = kube.Configuration()
    await kube_config.load_kube_config(
        config_file=options.kubeconfig, client_configuration=configuration
    )
    configuration.connection_pool_maxsize = options.concurrency
    configuration.client_session_kwargs = {"trust_env": False}  # else two threads a request
    async with kube.ApiClient(configuration) as client:
        headers = {"Accept": "application/json"}
        await client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        session = client.rest_client._create_pool_manager()
        client.rest_client.pool_manager = session
        bare = Bare(session, configuration.host, headers)

        async def work() -> None:
            for number in numbers:
                obj = prompt(f"{options.prefix}-{number}", options.text)
                obj["metadata"]["namespace"] = options.namespace
                count = int((number + 1) * options.patches) - int(number * options.patches)
                mine = [patches[n % len(patches)] for n in range(-count, 0)]
                await life(bare, options.namespace, obj["metadata"]["name"], json.dumps(obj), mine)

        print("ready", flush=True)
        if not await asyncio.to_thread(sys.stdin.readline):
            return  # whoever started this is gone
        begin, used = time.monotonic(), time.process_time()
        await asyncio.gather(*(work() for _ in range(options.concurrency)))
        print(time.monotonic() - begin, time.process_time() - used, flush=True)


def main() -> None:
    """As a process: ``ready``, then a line to stdin, then the seconds and CPU seconds it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--prefix", default="t")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=1000)
    parser.add_argument("--text", default="Hello.")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--statuses", help="file with a JSON list of what a status becomes in turn")
    parser.add_argument(
        "--patches", type=float, default=0, help="of an object's status, on average"
    )
    try:
        asyncio.run(run(parser.parse_args()))
    except Refused as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    main()
