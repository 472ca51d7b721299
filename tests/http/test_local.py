"""The file home's HTTP: where it listens, who is told, and that it is never a reason to fail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys

import pytest

from controller.http.endpoint import Endpoint, EndpointFile
from controller.http.health import Health
from controller.http.listen import is_loopback, listen, port_of, url_of
from controller.http.local import LocalHttp
from controller.http.monitor import Monitor
from controller.resources.settings import Http
from tests.http.harness import Connection, request, run


def made(tmp_path, **given):
    settings = Http(**{"port": 0, **given})
    health = Health(lambda: (True, ""))
    return LocalHttp(settings, health, Monitor(), tmp_path / "t", tmp_path / "http.json")


async def asked(url, path="/healthz", headers=None, host=None):
    address = url.removeprefix("http://")
    name, _, port = address.rpartition(":")
    connection = Connection(*await asyncio.open_connection(name.strip("[]"), int(port)))
    try:
        await connection.send(request(path, headers, host=host or address))
        return await connection.answer()
    finally:
        await connection.close()


def test_the_file_says_where_and_goes_with_it(tmp_path):
    async def scenario():
        http, file = made(tmp_path), tmp_path / "http.json"
        file.write_text('{"url": "http://old", "token": "old"}')
        http.start()
        found = json.loads(file.read_text())
        assert set(found) == {"url", "token"} and len(found["token"]) >= 40
        assert file.stat().st_mode & 0o777 == 0o600
        assert (await asked(found["url"])).status == 200
        path = "/api/v1/namespaces/default/transcripts"
        assert (await asked(found["url"], path)).status == 401
        bearer = {"Authorization": f"Bearer {found['token']}"}
        assert (await asked(found["url"], path, bearer)).json == {"transcripts": []}
        assert (await asked(found["url"], path, bearer, host="evil.example")).status == 421
        await http.stop()
        assert not file.exists()
        with pytest.raises(ConnectionRefusedError):
            await asked(found["url"])
        assert [p.name for p in tmp_path.iterdir()] == []

    run(scenario())


def test_each_start_has_a_token_of_its_own(tmp_path):
    async def scenario():
        tokens = set()
        for _ in range(3):
            http = made(tmp_path)
            http.start()
            tokens.add(json.loads((tmp_path / "http.json").read_text())["token"])
            await http.stop()
        assert len(tokens) == 3

    run(scenario())


def test_a_port_in_use_gives_another_and_one_warning(tmp_path, caplog):
    async def scenario():
        taken = listen("127.0.0.1", 0)
        http = made(tmp_path, port=port_of(taken))
        with caplog.at_level(logging.WARNING):
            http.start()
        url = json.loads((tmp_path / "http.json").read_text())["url"]
        assert url.startswith("http://127.0.0.1:") and url != url_of(taken)
        assert (await asked(url)).status == 200
        await http.stop()
        taken.close()
        (record,) = caplog.records
        assert record.getMessage().endswith(f"Address already in use; HTTP is on {url} instead")

    run(scenario())


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_only_a_warning(tmp_path, caplog, host):
    async def scenario():
        http = made(tmp_path, host=host)
        with caplog.at_level(logging.WARNING):
            http.start()
        assert not (tmp_path / "http.json").exists()
        await http.stop()
        assert caplog.records[0].getMessage().startswith(f"no HTTP: {host} port 0: ")

    run(scenario())


def test_a_file_that_cannot_be_written_is_only_a_warning(tmp_path, caplog):
    async def scenario():
        (tmp_path / "home").mkdir()
        http = made(tmp_path / "home")
        (tmp_path / "home").rmdir()
        with caplog.at_level(logging.WARNING):
            http.start()
        await http.stop()
        assert "no HTTP" in caplog.records[0].getMessage()

    run(scenario())


def test_switched_off_it_does_not_listen(tmp_path):
    async def scenario():
        (tmp_path / "http.json").write_text("{}")
        http = made(tmp_path, enabled=False)
        http.start()
        assert not (tmp_path / "http.json").exists()
        await http.stop()

    run(scenario())


def test_a_newer_controller_s_file_is_left_alone(tmp_path):
    async def scenario():
        http = made(tmp_path)
        http.start()
        newer = Endpoint("http://127.0.0.1:1", "newer")
        EndpointFile(tmp_path / "http.json").write(newer)
        await http.stop()
        assert EndpointFile(tmp_path / "http.json").read() == newer

    run(scenario())


def test_stopped_while_the_server_starts(tmp_path):
    async def scenario():
        http = made(tmp_path)
        http.start()
        url = json.loads((tmp_path / "http.json").read_text())["url"]
        name, _, port = url.removeprefix("http://").rpartition(":")
        _, writer = await asyncio.open_connection(name, int(port))
        await asyncio.sleep(0)
        await http.stop()
        writer.close()
        assert not (tmp_path / "http.json").exists()

    run(scenario())


def test_beyond_this_machine_any_host_name_is_taken(tmp_path):
    async def scenario():
        http = made(tmp_path, host="0.0.0.0")
        http.start()
        url = json.loads((tmp_path / "http.json").read_text())["url"]
        assert url.startswith("http://127.0.0.1:")
        assert (await asked(url, host="build-7.corp.example:4000")).status == 200
        await http.stop()

    run(scenario())


def has_ipv6():
    try:
        listen("::1", 0).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv6(tmp_path):
    async def scenario():
        http = made(tmp_path, host="::1")
        http.start()
        url = json.loads((tmp_path / "http.json").read_text())["url"]
        assert url.startswith("http://[::1]:")
        assert (await asked(url)).status == 200
        await http.stop()

    run(scenario())


def test_every_address_is_not_loopback():
    for host in ("", "0.0.0.0"):
        sock = listen(host, 0)
        assert not is_loopback(sock)
        with socket.create_connection(("127.0.0.1", port_of(sock)), timeout=5):
            pass
        sock.close()


def test_what_is_no_endpoint_is_none(tmp_path):
    file = EndpointFile(tmp_path / "http.json")
    assert file.read() is None
    for text in ("", "[]", "{}", '{"url": "x"}', "\xff", '{"url": 1'):
        (tmp_path / "http.json").write_text(text)
        assert file.read() is None


def test_a_link_in_the_file_s_place_is_replaced_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("here")
    for name in ("http.json", f".http.json.{os.getpid()}"):
        (tmp_path / name).symlink_to(target)
    EndpointFile(tmp_path / "http.json").write(Endpoint("u", "t"))
    assert target.read_text() == "here"
    assert EndpointFile(tmp_path / "http.json").read() == Endpoint("u", "t")


def test_nothing_of_a_server_is_imported_before_somebody_asks():
    code = (
        "import sys, controller.runtime.local\n"
        "print([m for m in ('starlette', 'uvicorn', 'prometheus_client', 'h11', 'anyio')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
