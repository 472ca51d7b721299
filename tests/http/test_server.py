"""The server at its edges: hosts, methods, sizes, clients that do not go on, and its own end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.http import server as module
from controller.http.guard import MAX_QUERY, Guard, loopback_hosts
from controller.http.listen import listen, port_of
from controller.http.server import Server
from tests.http.harness import BEARER, Connection, request, run, site, transcript, until


def test_only_names_of_this_machine_are_taken_where_hosts_are_given(tmp_path):
    async def scenario():
        async with site(tmp_path, hosts=loopback_hosts(4000, "127.0.0.2")) as made:
            good = ["127.0.0.1:4000", "localhost:4000", "LOCALHOST:4000", "[::1]:4000"]
            for host in [*good, "127.0.0.2:4000"]:
                assert (await made.ask("/healthz", host=host)).status == 200, host
            bad = ["evil.example", "evil.example:4000", "127.0.0.1", "localhost:4001", "localhost",
                   "127.0.0.1.evil.example:4000", "localhost.:4000"]  # fmt: skip
            for host in bad:
                answer = await made.ask("/healthz", host=host)
                assert (answer.status, answer.json["reason"]) == (421, "WrongHost"), host
            connection = await made.connect()
            await connection.send(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert (await connection.answer()).status == 421

    run(scenario())


def test_the_usual_port_is_not_named_by_clients():
    assert "localhost" in loopback_hosts(80) and "localhost" not in loopback_hosts(4000)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "ODD"])
def test_nothing_can_be_written(tmp_path, method):
    async def scenario():
        async with site(tmp_path) as made:
            for path in ("/healthz", "/api/v1/namespaces/default/transcripts"):
                answer = await made.ask(path, {**BEARER, "Content-Length": "0"}, method=method)
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")

    run(scenario())


def test_every_answer_forbids_what_a_browser_could_make_of_it(tmp_path):
    async def scenario():
        async with site(tmp_path) as made:
            for path in ("/healthz", "/metrics", "/none", "/api/v1/namespaces/default/events"):
                answer = await made.ask(path, {"Origin": "https://evil.example"})
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert "default-src 'none'" in answer.headers["content-security-policy"]
                assert not any(name.startswith("access-control") for name in answer.headers)
                assert "server" not in answer.headers

    run(scenario())


@pytest.mark.parametrize("path", ["/", "/healthz/", "/api", "/api/v1/", "//evil.example/healthz"])
def test_other_paths_are_not_there_and_lead_nowhere(tmp_path, path):
    async def scenario():
        async with site(tmp_path) as made:
            answer = await made.ask(path)
            assert (answer.status, answer.json["reason"]) == (404, "NotFound")
            assert "location" not in answer.headers

    run(scenario())


def test_heads_and_queries_have_a_size(tmp_path):
    async def scenario():
        async with site(tmp_path) as made:
            answer = await made.ask("/healthz?" + "x" * (MAX_QUERY + 1))
            assert (answer.status, answer.json["reason"]) == (414, "TooLong")
            connection = await made.connect()
            await connection.send(
                b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (module.MAX_HEAD + 1)
            )
            assert (await connection.head())[0] == 400
            await connection.close()

    run(scenario())


def test_what_fails_inside_is_logged_and_not_told(tmp_path, caplog):
    async def broken(scope, receive, send):
        raise RuntimeError("the secret is 4711")

    async def scenario():
        sock = listen("127.0.0.1", 0)
        server = Server(Guard(broken), sock)
        await server.start()
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port_of(sock)))
        await connection.send(request("/a%0ab", BEARER))
        answer = await connection.answer()
        assert (answer.status, answer.json["reason"]) == (500, "Internal")
        assert b"4711" not in answer.body
        await connection.close()
        await server.stop()

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["GET '/a\\nb' failed"]


def test_nothing_of_a_request_is_logged(tmp_path, caplog):
    transcript(tmp_path)

    async def scenario():
        async with site(tmp_path) as made:
            await made.ask("/api/v1/namespaces/default/transcripts", BEARER)
            await made.ask("/healthz?token=abc")
            connection = await made.connect()
            await connection.send(b"\x16\x03\x01 nonsense\r\n\r\n")
            await connection.rest()

    with caplog.at_level(logging.DEBUG):
        run(scenario())
    assert not [r for r in caplog.records if r.name.startswith(("uvicorn", "controller"))]


def test_a_head_that_does_not_come_ends_the_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)

    async def scenario():
        async with site(tmp_path) as made:
            silent, slow, again = [await made.connect() for _ in range(3)]
            await slow.send(b"GET /healthz HTTP/1.1\r\nHo")
            await again.send(request("/healthz"))
            assert (await again.answer()).status == 200
            await again.send(b"GET /heal")
            for connection in (silent, slow, again):
                assert await connection.rest() == b""
                await connection.close()

    run(scenario())


def test_a_stream_is_not_taken_for_a_slow_head(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.1)

    async def scenario():
        async with site(tmp_path) as made:
            connection = await made.connect()
            await connection.send(request("/api/v1/namespaces/default/events", BEARER))
            await connection.head()
            await connection.chunk()
            await asyncio.sleep(0.3)  # longer than a head may take
            assert len(made.monitor.feed) == 1
            await connection.close()

    run(scenario())


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux")
def test_a_client_that_takes_nothing_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STUCK_SECONDS", 1)
    transcript(tmp_path, b"x" * 2**22)

    async def scenario():
        async with site(tmp_path) as made:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", made.port))
            path = "/api/v1/namespaces/default/transcripts/builders-1a2b3c4d/builders-1a2b3c4d-0-1"
            client.sendall(request(f"{path}?limit={2**22}", BEARER))
            state = made.service._server._server.server_state
            await until(lambda: state.connections, "the client to be there")
            await until(lambda: not state.connections, "the client to be let go")
            client.close()

    run(scenario())


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_FROM_ONE"])
def test_connections_are_bounded(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(module, limit, 3)

    async def scenario():
        async with site(tmp_path) as made:
            held = [await made.connect() for _ in range(3)]
            for connection in held:
                await connection.send(request("/healthz"))
                assert (await connection.answer()).status == 200
            refused = await made.connect()
            assert await refused.rest() == b""
            for connection in held:
                await connection.close()

    run(scenario())


def test_an_address_is_one_however_it_is_written():
    same = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
    assert {module._origin((host, 1)) for host in same} == {"loopback"}
    same = ["192.0.2.1", "::ffff:192.0.2.1"]
    assert {module._origin((host, 1)) for host in same} == {"192.0.2.1"}
    assert module._origin(("fe80::1%eth0", 1)) == "fe80::1"
    assert module._origin(None) == ""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_it(tmp_path, data, end):
    async def scenario():
        async with site(tmp_path) as made:
            connection = await made.connect()
            await connection.send(b"GET " + data if end else data)
            if end:
                await connection.send(b"\r\n\r\n")
            await connection.close()
            assert (await made.ask("/healthz")).status == 200

    run(scenario())


def test_signals_stay_as_they_are(tmp_path):
    async def scenario():
        before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
        async with site(tmp_path) as made:
            await made.ask("/healthz")
            assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before

    run(scenario())


def test_a_stopped_service_listens_no_more(tmp_path):
    async def scenario():
        async with site(tmp_path) as made:
            idle = await made.connect()
            await idle.send(request("/healthz"))
            await idle.answer()
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await made.connect()
        await idle.close()

    run(scenario())


def test_an_idle_service_wakes_the_process_once_a_second(tmp_path):
    async def scenario():
        loop = asyncio.get_running_loop()
        async with site(tmp_path):
            timers = [t.when() - loop.time() for t in loop._scheduled if not t.cancelled()]
            # The heartbeat, and the time limits of this scenario itself.
            assert len([t for t in timers if t < 5]) == 1

    run(scenario())
