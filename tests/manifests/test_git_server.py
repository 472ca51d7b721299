"""The git server of examples/kubernetes, for real: pushes, clones, and a whole project on it."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab import Lab, git
from tests.manifests.documents import EXAMPLES

PROGRAM = EXAMPLES / "kubernetes" / "git-server" / "serve.py"


@pytest.fixture
def server(tmp_path):
    """The server's address, with the repository ``greeter``."""
    arguments = ["--root", str(tmp_path / "served" / "git"), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments, "greeter"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield f"http://127.0.0.1:{re.search(r'port ([0-9]+)', line)[1]}"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def clone(url: str, to: Path) -> Path:
    git("clone", "--quiet", url, str(to))
    git("-C", str(to), "config", "user.name", "Test")
    git("-C", str(to), "config", "user.email", "test@example.com")
    return to


def test_what_is_pushed_is_cloned(server, tmp_path):
    url = f"{server}/greeter.git"
    first = clone(url, tmp_path / "first")
    (first / "small.txt").write_text("small\n")
    git("-C", str(first), "add", "-A")
    git("-C", str(first), "commit", "--quiet", "-m", "Small")
    git("-C", str(first), "push", "--quiet", "origin", "HEAD:main")
    # Beyond http.postBuffer (1 MiB) git sends chunks.
    (first / "big.bin").write_bytes(bytes(range(256)) * 4096 + b"x" * 5_000_000)
    big = subprocess.run(["openssl", "rand", "3000000"], capture_output=True, check=True).stdout
    (first / "random.bin").write_bytes(big)
    git("-C", str(first), "add", "-A")
    git("-C", str(first), "commit", "--quiet", "-m", "Big")
    git("-C", str(first), "push", "--quiet", "origin", "HEAD:main")
    second = clone(url, tmp_path / "second")
    assert (second / "random.bin").read_bytes() == big


@pytest.mark.parametrize(
    "path",
    [
        "/other.git/info/refs?service=git-upload-pack",
        "/../greeter.git/info/refs",
        "/greeter.git/HEAD",
        "/greeter.git/../greeter.git/config",
        "/",
    ],
)
def test_nothing_else_is_served(server, path):
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize(("length", "status"), [("-1", 413), ("x", 400), (str(1 << 40), 413)])
def test_bad_lengths_are_refused(server, length, status):
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/greeter.git/git-upload-pack")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.e2e
def test_the_example_project_is_finished_on_it(server, tmp_path):
    """All but the cluster: the manifest's repository, empty, over HTTP."""
    text = (EXAMPLES / "kubernetes" / "greeter.yaml").read_text()
    assert "http://git.codeswarm.svc:8080" in text
    objects = list(yaml.safe_load_all(text.replace("http://git.codeswarm.svc:8080", server)))
    with Lab(tmp_path / "lab") as lab:
        lab.start()
        lab.apply(*objects)
        lab.wait_phase("Project", "greeter", "Completed", deadline=90.0)
    done = clone(f"{server}/greeter.git", tmp_path / "done")
    git("-C", str(done), "checkout", "--quiet", "codeswarm/greeter/integration")
    ran = subprocess.run(
        [sys.executable, "src/main.py", "Ada"], cwd=done, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "Hello, Ada!\n"
