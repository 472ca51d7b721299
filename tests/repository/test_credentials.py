"""Credentials reach git through files of mode 0600 for one command, and nowhere else."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from controller.repository.credentials import Credentials, environment
from controller.repository.service import Repositories
from tests.repository.helpers import filled_bare, git, make_bare


def test_a_token_is_answered_by_the_helper_and_is_gone_afterwards() -> None:
    with environment(Credentials(username="ada", token="s3cret $x")) as variables:
        assert "s3cret" not in "".join(variables.values())
        helper = Path(variables["GIT_ASKPASS"])
        answers = [
            subprocess.run(
                [str(helper), question], check=True, capture_output=True, text=True, timeout=20
            ).stdout
            for question in ("Username for 'https://x': ", "Password for 'https://ada@x': ")
        ]
        assert answers == ["ada", "s3cret $x"]
        assert (helper.parent / "token").stat().st_mode & 0o777 == 0o600
        assert helper.parent.stat().st_mode & 0o777 == 0o700
        assert variables["GIT_CONFIG_KEY_0"] == "credential.helper"
    assert not helper.parent.exists()


def test_a_key_and_known_hosts_reach_ssh() -> None:
    with environment(Credentials(ssh_key="KEY", known_hosts="HOSTS")) as variables:
        words = variables["GIT_SSH_COMMAND"].split()
        key = Path(words[words.index("-i") + 1])
        assert key.read_text() == "KEY\n"
        assert key.stat().st_mode & 0o777 == 0o600
        assert "-oStrictHostKeyChecking=yes" in words
        assert "-oBatchMode=yes" in words
    assert not key.exists()


def test_without_credentials_nothing_is_asked() -> None:
    with environment(None) as variables:
        assert "-oBatchMode=yes" in variables["GIT_SSH_COMMAND"]
        assert "GIT_ASKPASS" not in variables


def test_secrets_are_in_no_representation() -> None:
    assert "s3cret" not in repr(Credentials(token="s3cret", ssh_key="s3cret"))


@pytest.fixture
def over_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ssh that runs the command here, and notes what it was given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ssh"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/ssh.log\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "ssh.log"


def test_a_remote_over_ssh_gets_its_first_commit_and_refs(tmp_path: Path, over_ssh: Path) -> None:
    bare = make_bare(tmp_path / "r.git")
    url = f"git@example.invalid:{bare}"
    credentials = Credentials(ssh_key="KEY")

    async def run() -> None:
        repositories = Repositories()
        assert (await repositories.inspect(url, None, "p", credentials)).empty
        base = await repositories.ensure_base(url, "main", tmp_path / "s.git", credentials)
        state = await repositories.inspect(url, None, "p", credentials)
        assert (state.base_branch, state.base_commit) == ("main", base)
        ref = "refs/codeswarm/u/1"
        put = await repositories.put(tmp_path / "s.git", url, {ref: base}, {ref: ""}, credentials)
        assert put[ref].accepted
        assert await repositories.ref_value(url, ref, credentials) == base
        assert await repositories.ref_value(url, "refs/heads/main", credentials) == base

    asyncio.run(run())
    assert git("log", "--format=%s", "main", cwd=bare) == "Begin"
    assert "KEY" not in over_ssh.read_text()
    assert "IdentitiesOnly=yes" in over_ssh.read_text()


def test_one_ref_asked_by_many_over_ssh_costs_few_looks(tmp_path: Path, over_ssh: Path) -> None:
    bare, work = filled_bare(tmp_path)
    head = git("rev-parse", "HEAD", cwd=work)
    refs = [f"refs/codeswarm/u-{number}/1" for number in range(30)]
    for ref in refs:
        git("update-ref", ref, head, cwd=bare)

    async def run() -> None:
        repositories = Repositories()
        url = f"example.invalid:{bare}"
        values = await asyncio.gather(*(repositories.ref_value(url, ref) for ref in refs))
        assert values == [head] * 30
        assert repositories.git.commands == 1

    asyncio.run(run())
