"""Transcripts of a cluster: through the service proxy and straight, with whose token, and growing.

The controller's own HTTP service answers; a stand-in plays the API server before it.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest

from cli import kube_gate, kube_transcripts
from cli.errors import CliError
from cli.kube_client import KubeClient
from controller.store.base import Forbidden, StoreUnavailable
from tests.cli.apiserver import ApiServer, Asked, Reply, status
from tests.cli.controller_http import ControllerHttp, one_token, write
from tests.cli.test_kube_server import client_of

SPACE = "default"
FOLDER, JOB = "builders-1a2b3c4d", "builders-1a2b3c4d-0-1"
OLDER, OLDER_JOB = "builders-00000000", "builders-00000000-0-1"
PROXY = "/api/v1/namespaces/codeswarm/services/http:codeswarm:4000/proxy"
READER = "/api/v1/namespaces/codeswarm/serviceaccounts/codeswarm-reader/token"
SWARM = {"kind": "Swarm", "metadata": {"name": "builders", "namespace": SPACE, "uid": "1a2b3c4d-5",
         "resourceVersion": "1"}}  # fmt: skip


@dataclass
class Front:
    """An API server with a controller behind its proxy."""

    controller: ControllerHttp
    refuse: list[Reply] = field(default_factory=list)
    """Answers to the next requests that the proxy does not pass on."""
    lent: str = "lent"
    refused: Reply | None = None
    """What a TokenRequest gets instead of a token."""

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.startswith(PROXY):
            return self.refuse.pop(0) if self.refuse else self._pass_on(asked)
        if asked.path == READER:
            assert asked.body["spec"] == {"expirationSeconds": 600}
            end = datetime.now(UTC) + timedelta(seconds=600)
            token = {"token": self.lent, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
            return self.refused or Reply({"status": token})
        if asked.path.endswith("/swarms/builders"):
            return Reply(SWARM)
        return status(404, "none", "NotFound", name="x")

    def _pass_on(self, asked: Asked) -> Reply:
        query = urlencode([(k, v) for k, vs in asked.query.items() for v in vs.split(",")])
        url = f"{self.controller.url}{asked.path.removeprefix(PROXY)}?{query}"
        token = asked.headers.get("x-codeswarm-token", "")
        request = urllib.request.Request(url, headers={"X-Codeswarm-Token": token})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return Reply(answer.read(), answer.status, _passed(answer.headers))
        except HTTPError as error:
            return Reply(error.read(), error.code, _passed(error.headers))


def _passed(headers: Any) -> dict[str, str]:
    wanted = ("content-type", "x-codeswarm-size")
    return {name: value for name, value in headers.items() if name.lower() in wanted}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the tester's environment; no long patience."""
    for name in ("CODESWARM_CONTROLLER_NAMESPACE", "CODESWARM_API_URL", "CODESWARM_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kube_gate, "FIRST_PAUSE", 0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The controller's transcripts: of a swarm, and of one of its name before it."""
    root = tmp_path / "transcripts"
    write(root, SPACE, OLDER, OLDER_JOB, b'{"old": 1}\n')
    write(root, SPACE, FOLDER, JOB, b'{"seq": 1}\n')
    write(root, "other", FOLDER, JOB, b'{"secret": 1}\n')
    return root


Start = Callable[..., tuple[KubeClient, Front, ApiServer]]


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Start]:
    """Bring a controller up that knows one token, and a client with a kubeconfig."""
    running: list[Any] = []

    def begin(known: str, own: str) -> tuple[KubeClient, Front, ApiServer]:
        front = Front(ControllerHttp(root, one_token(known)))
        server = ApiServer(front)
        for part in (front.controller, server):
            part.__enter__()
            running.append(part)
        return client_of(server, tmp_path, token=own), front, server

    yield begin
    for part in reversed(running):
        part.__exit__()


def test_through_the_proxy_with_ones_own_token(start: Start, root: Path) -> None:
    client, _, server = start("secret", "secret")
    [found] = client.transcripts(SPACE, swarm="builders")
    assert (found.job, found.size()) == (JOB, 11)
    assert found.read(0, 5) == b'{"seq'
    assert found.read(5, 100) == b'": 1}\n'
    assert READER not in [asked.path for asked in server.asked]
    proxied = [asked for asked in server.asked if asked.path.startswith(PROXY)]
    assert all(asked.headers["x-codeswarm-token"] == "secret" for asked in proxied)


def test_by_job_and_all_of_a_namespace(start: Start) -> None:
    client, _, server = start("secret", "secret")
    assert [t.job for t in client.transcripts(SPACE)] == [OLDER_JOB, JOB]
    assert [t.job for t in client.transcripts(SPACE, jobs=[JOB])] == [JOB]
    assert server.asked[-1].query["job"] == JOB
    many = [f"builders-1a2b3c4d-{n}-1" for n in range(100)]
    assert [t.job for t in client.transcripts(SPACE, jobs=[*many, OLDER_JOB])] == [OLDER_JOB, JOB]
    assert server.asked[-1].query == {}
    assert client.transcripts("empty") == []


def test_the_last_one_of_a_name_that_is_gone(start: Start, root: Path) -> None:
    client, _, _ = start("secret", "secret")
    write(root, SPACE, "gone-00000001", "gone-00000001-0-1", b"x")
    assert [t.job for t in client.transcripts(SPACE, swarm="gone")] == ["gone-00000001-0-1"]
    assert client.transcripts(SPACE, swarm="never") == []
    assert client.transcripts(SPACE, swarm="No Name") == []


def test_only_what_has_grown_is_read(
    start: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, server = start("secret", "secret")
    [found] = client.transcripts(SPACE, swarm="builders")
    assert found.read(0, 100) == b'{"seq": 1}\n'
    before = len(server.asked)
    for _ in range(10):
        assert found.read(11, 100) == b""
    assert len(server.asked) == before
    write(root, SPACE, FOLDER, JOB, b'{"seq": 2}\n')
    monkeypatch.setattr(kube_transcripts, "REFRESH_SECONDS", 0.0)
    assert found.read(11, 100) == b'{"seq": 2}\n'
    (root / SPACE / FOLDER / f"{JOB}.jsonl").unlink()
    assert found.read(0, 100) == b""


def test_a_certificate_gets_a_token_that_is_kept_and_renewed(start: Start) -> None:
    client, front, server = start("lent", "")
    for _ in range(3):
        assert client.transcripts(SPACE)
    assert [asked.path for asked in server.asked].count(READER) == 1
    front.refuse.append(Reply({"reason": "Unauthenticated", "message": "it ended"}, 401))
    assert client.transcripts(SPACE)
    assert [asked.path for asked in server.asked].count(READER) == 2


def test_no_right_to_a_token_is_told(start: Start) -> None:
    client, front, _ = start("lent", "")
    front.refused = status(403, "serviceaccounts/token is forbidden", "Forbidden")
    with pytest.raises(CliError) as caught:
        client.transcripts(SPACE)
    assert caught.value.code == 5
    for part in ("serviceaccounts/token is forbidden", "codeswarm-reader", "CODESWARM_API_URL"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        status(404, 'services "codeswarm" not found', "NotFound", name="codeswarm"),
        status(503, "no endpoints available", "ServiceUnavailable"),
        status(403, "cannot get resource services/proxy", "Forbidden"),
    ],
)
def test_a_proxy_that_does_not_lead_there(start: Start, reply: Reply) -> None:
    client, front, _ = start("secret", "secret")
    front.refuse.append(reply)
    with pytest.raises(CliError) as caught:
        client.transcripts(SPACE)
    assert caught.value.code == 5
    for part in (reply.body["message"], "port-forward", "CODESWARM_CONTROLLER_NAMESPACE"):
        assert part in str(caught.value)


def test_a_controller_that_starts_anew_is_waited_for(start: Start) -> None:
    client, front, _ = start("secret", "secret")
    assert client.transcripts(SPACE)
    front.refuse += [status(503, "no endpoints available")] * 3
    assert client.transcripts(SPACE)


def test_what_the_controller_refuses(start: Start) -> None:
    client, front, _ = start("secret", "another")
    with pytest.raises(StoreUnavailable, match="does not accept the token"):
        client.transcripts(SPACE)
    front.refuse.append(Reply({"reason": "Forbidden", "message": "not in this namespace"}, 403))
    with pytest.raises(Forbidden, match="transcripts may not be read: not in this namespace"):
        client.transcripts(SPACE)


def test_straight_to_the_controller(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client, front, server = start("direct", "secret")
    monkeypatch.setenv("CODESWARM_API_URL", front.controller.url + "/")
    monkeypatch.setenv("CODESWARM_API_TOKEN", "direct")
    [found] = client.transcripts(SPACE, jobs=[JOB])
    assert found.read(0, 100) == b'{"seq": 1}\n'
    assert not [asked for asked in server.asked if asked.path.startswith(PROXY)]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:1", "(CODESWARM_API_URL) is not reached"),
        ("127.0.0.1:4000", "not of the form"),
        ("http://controller.example:4000", "a token is sent over https"),
        ("ftp://127.0.0.1", "not of the form"),
    ],
)
def test_addresses_that_are_not_right(
    start: Start, monkeypatch: pytest.MonkeyPatch, url: str, text: str
) -> None:
    client, _, _ = start("direct", "secret")
    monkeypatch.setenv("CODESWARM_API_URL", url)
    with pytest.raises(CliError) as caught:
        client.transcripts(SPACE)
    assert text in str(caught.value)
