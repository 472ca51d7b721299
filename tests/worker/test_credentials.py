"""Credentials reach git, and nobody else."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.harness import Repository, Worker, block
from worker.credentials import Credentials, remote, take
from worker.errors import TurnError


def test_they_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "secrets" / "s1"
    path.write_text(json.dumps({"token": "t", "username": "u", "sshKey": "k", "knownHosts": "h"}))
    found = take(tmp_path, "s1")
    assert found == Credentials("t", "u", "k", "h")
    assert "t" not in repr(found).replace("Credentials", "")
    assert not path.exists()
    assert take(tmp_path, None) == Credentials()
    with pytest.raises(TurnError) as caught:
        take(tmp_path, "s1")
    assert caught.value.kind == "infrastructure"


@pytest.mark.parametrize("text", ["", "[]", '{"token": 5}', '{"token": "secret'])
def test_what_is_no_credential_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "s1").write_text(text)
    with pytest.raises(TurnError) as caught:
        take(tmp_path, "s1")
    assert "secret'" not in str(caught.value) and "5" not in str(caught.value)


def test_a_token_is_given_by_a_helper_as_long_as_git_needs_it(tmp_path: Path) -> None:
    with remote(tmp_path, "https://x/y", Credentials(token="t0ken $x`'", username="ada")) as found:
        assert not any("t0ken" in text for text in (*found.env.values(), *found.options))
        helper = found.env["GIT_ASKPASS"]
        asked = [
            subprocess.run([helper, question], capture_output=True, check=True).stdout
            for question in ("Username for 'https://x': ", "Password for 'https://ada@x': ")
        ]
        assert asked == [b"ada\n", b"t0ken $x`'\n"]
        modes = {p.name: p.stat().st_mode & 0o777 for p in Path(helper).parent.iterdir()}
        assert modes == {"token": 0o600, "username": 0o600, "askpass": 0o700}
    assert list((tmp_path / "secrets").iterdir()) == []


def test_an_ssh_key_is_the_only_one_offered(tmp_path: Path) -> None:
    with remote(tmp_path, "ssh://x/y", Credentials(ssh_key="KEY", known_hosts="x ssh A")) as found:
        command = found.env["GIT_SSH_COMMAND"]
        key = command.split("-i ")[1].split()[0]
        assert Path(key).read_text() == "KEY\n" and Path(key).stat().st_mode & 0o777 == 0o600
        for option in ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes"):
            assert option in command
    assert not Path(key).exists()


def test_without_credentials_the_users_own_configuration_counts(tmp_path: Path) -> None:
    with remote(tmp_path, "https://x/y", Credentials()) as found:
        assert (dict(found.env), tuple(found.options)) == ({}, ())
    assert not (tmp_path / "secrets").exists()


class GitServer(http.server.ThreadingHTTPServer):
    """``git http-backend`` behind Basic authentication."""

    root: Path
    seen: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: GitServer

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._serve(self.rfile.read(length))

    def _serve(self, body: bytes) -> None:
        self.server.seen.append(self.path)
        wanted = "Basic " + base64.b64encode(b"ada:t0ken").decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        env = {
            "PATH": "/usr/bin:/bin",
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "ada",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((int(v.split()[0]) for k, v in fields if k == "Status"), 200)
        self.send_response(status)
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    made = GitServer(("127.0.0.1", 0), Handler)
    made.root, made.seen = tmp_path, []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_token_lets_a_whole_task_in_and_the_agent_never_sees_it(
    worker: Worker, remote: Repository, server: GitServer
) -> None:
    secret = worker.base / "secrets" / "s1"
    secret.parent.mkdir()
    secret.write_text(json.dumps({"token": "t0ken", "username": "ada"}))
    look = "! grep -rs t0k''en .. && ! env | grep t0k''en"
    record = remote.work("u.1", block({"run": look}, {"write": {"path": "a", "content": ""}}))
    record["repository"]["url"] = f"http://127.0.0.1:{server.server_port}/{remote.path.name}"
    record["secrets"] = "s1"
    worker.write(record)
    done = worker.outcome("u.1")
    assert done["status"] == "completed", done
    assert remote.refs()["refs/codeswarm/uid-library/1"]
    assert any("git-receive-pack" in path for path in server.seen)
    assert b"t0ken" not in worker.outbox.read_bytes()
    assert list((worker.base / "secrets").iterdir()) == []


def test_a_wrong_token_is_an_infrastructure_failure_without_a_prompt(
    worker: Worker, remote: Repository, server: GitServer
) -> None:
    secret = worker.base / "secrets" / "s1"
    secret.parent.mkdir()
    secret.write_text(json.dumps({"token": "wr0ng", "username": "ada"}))
    record = remote.work("u.1", block({"say": "never"}))
    record["repository"]["url"] = f"http://127.0.0.1:{server.server_port}/{remote.path.name}"
    worker.write({**record, "secrets": "s1"})
    done = worker.outcome("u.1")
    assert done["error"]["class"] == "infrastructure"
    assert "Authentication failed" in done["error"]["message"]
    assert "wr0ng" not in json.dumps(done)
