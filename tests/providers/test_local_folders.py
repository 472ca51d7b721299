"""The local provider's own: what a worker is given, and links where a folder should be."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import psutil
import pytest

from providers.base import JobState, ProviderError
from providers.launching import worker_environment
from tests.providers.harness import new_swarm, request, run, session
from tests.providers.local import folder_of
from tests.providers.test_conformance import LocalHarness

# --- what a worker is given ------------------------------------------------------------------


def test_the_controllers_secrets_stay_with_it(
    harness: LocalHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-controllers")
    monkeypatch.setenv("CODESWARM_HOME", "/the/controllers")
    monkeypatch.setenv("LC_TIME", "C")

    async def scenario() -> None:
        wanted = request(new_swarm(harness), standin={"delay": 600})
        async with session(harness) as one:
            await one.provider.launch([wanted])
            folder = folder_of(harness, wanted)
            (pid,) = harness.processes(wanted.job)
            environment = psutil.Process(pid).environ()
            assert "OPENAI_API_KEY" not in environment
            assert "AGENT_TOKEN" not in environment
            assert "CODESWARM_HOME" not in environment
            assert environment["LC_TIME"] == "C"
            assert environment["CODESWARM_BASE_DIR"] == str(folder)
            assert environment["CODESWARM_NODE_ID"]
            assert psutil.Process(pid).cwd() == str(folder)
            assert os.getsid(pid) == pid
            assert json.loads((folder / "env").read_text()) == {"AGENT_TOKEN": "for-the-agent"}
            told = json.loads((folder / "worker.json").read_text())
            assert told["job"] == wanted.job
            assert told["swarm_uid"] == wanted.swarm.uid
            assert told["hint"] == str(harness.root / "outbox.wake")
            assert "for-the-agent" not in json.dumps(told)
            for name in ("env", "worker.json", "worker.log"):
                assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
            assert stat.S_ISFIFO((folder / "mailbox" / "inbox" / "wake").stat().st_mode)

    run(scenario)


def test_only_the_listed_variables_are_passed_on() -> None:
    own = {"PATH": "/bin", "HOME": "/root", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "/y"}
    assert worker_environment(own, "j", Path("/f"), "n") == {
        "PATH": "/bin",
        "HOME": "/root",
        "CODESWARM_JOB_ID": "j",
        "CODESWARM_BASE_DIR": "/f",
        "CODESWARM_NODE_ID": "n",
    }


def test_secrets_lie_beside_the_record_before_it(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness), standin={"delay": 600})
        async with session(harness) as one:
            await one.provider.launch([wanted])
            record = {"type": "user", "injection_id": "u.1", "content": "hello"}
            await one.provider.deliver(
                wanted.swarm, wanted.job, 0, record, secrets={"token": "hidden"}
            )
            folder = folder_of(harness, wanted)
            inbox = folder / "mailbox" / "inbox" / f"{wanted.job}_00.jsonl"
            assert json.loads(inbox.read_bytes()) == {**record, "secrets": "u.1.json"}
            assert stat.S_IMODE(inbox.stat().st_mode) == 0o600
            secret = folder / "secrets" / "u.1.json"
            assert json.loads(secret.read_text()) == {"token": "hidden"}
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            with pytest.raises(ProviderError, match="cannot name a folder"):
                await one.provider.deliver(
                    wanted.swarm, wanted.job, 0, {"injection_id": "../x"}, secrets={"a": "b"}
                )

    run(scenario)


# --- links -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["mailbox", "mailbox/inbox", "secrets", "inbox file"])
def test_mail_goes_nowhere_but_the_jobs_folder(harness: LocalHarness, place: str) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness), standin={"delay": 600})
        precious = harness.root.parent / "precious"
        (precious / "inbox").mkdir(parents=True)
        (precious / "file").write_text("kept\n")
        async with session(harness) as one:
            await one.provider.launch([wanted])
            folder = folder_of(harness, wanted)
            if place == "inbox file":
                link = folder / "mailbox" / "inbox" / f"{wanted.job}_00.jsonl"
                link.symlink_to(precious / "file")
            else:
                (folder / place).rename(folder / "moved")
                (folder / place).symlink_to(precious)
            with pytest.raises(ProviderError) as refused:
                await one.provider.deliver(
                    wanted.swarm, wanted.job, 0, {"injection_id": "u.1"}, secrets={"a": "b"}
                )
            assert refused.value.reason in ("UnsafePath", "DeliveryFailed")
            assert (precious / "file").read_text() == "kept\n"
            assert sorted(path.name for path in precious.rglob("*")) == ["file", "inbox"]

    run(scenario)


def test_a_job_that_is_a_link_is_not_seen_packed_or_followed(harness: LocalHarness) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        wanted = request(swarm)
        precious = harness.root.parent / "precious"
        precious.mkdir()
        (precious / "file").write_text("kept")
        link = folder_of(harness, wanted)
        link.parent.mkdir(parents=True)
        link.symlink_to(precious)
        async with session(harness) as one:
            assert await one.provider.observe(swarm) == []
            await one.provider.stop(swarm, [wanted.job], force=True)
            await one.provider.remove(swarm, [wanted.job])
            assert not link.is_symlink()
        assert (precious / "file").read_text() == "kept"

    run(scenario)


def test_an_archive_is_not_put_into_what_is_removed(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness))
        async with session(harness) as one:
            await one.provider.launch([wanted])
            with pytest.raises(ProviderError) as refused:
                await one.provider.archive(wanted.swarm, folder_of(harness, wanted))
            assert refused.value.reason == "InvalidArchivePath"

    run(scenario)


def test_the_last_swarm_takes_its_namespace_along(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = [request(new_swarm(harness, name), standin={"exit": 0}) for name in ("a", "b")]
        async with session(harness) as one:
            await one.provider.launch(wanted)
            for number, each in enumerate(wanted):
                await one.reach(each.swarm, JobState.ENDED, each.job)
                await one.provider.remove(each.swarm)
                assert (harness.root / "default").exists() == (number == 0)
            left = sorted(path.name for path in harness.root.iterdir())
            assert left == ["outbox.wake", "stores"]

    run(scenario)


def test_a_record_too_long_for_the_mailbox_is_refused(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness), standin={"delay": 600})
        async with session(harness) as one:
            await one.provider.launch([wanted])
            with pytest.raises(ProviderError) as refused:
                await one.provider.deliver(
                    wanted.swarm, wanted.job, 0, {"content": "x" * (9 << 20)}
                )
            assert refused.value.reason == "RecordTooLarge"

    run(scenario)
