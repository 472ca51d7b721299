"""What sbatch is given: options that are possible, arguments and a script that bear any name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import ProviderError
from providers.slurm_options import arguments, value_of
from providers.slurm_submit import Submission, Wanted, command, job_id, script, wanted
from tests.worker.harness import until
from worker.bundle import build

UID, JOB = "0d9f6a1e-1111-4222-8333-444455556666", "team-0d9f6a1e-3-1"


@pytest.mark.parametrize(
    "option",
    [
        "--array=1-9", "--arr=1", "-a1-9", "-a 1-9", "--job-name=x", "--job-n=x", "-Jx", "-HJx",
        "--comment=x", "--parsable", "--wrap=ls", "--wra=ls", "--test-only", "--requeue", "--req",
        "-o/dev/null", "--output=x", "--error=x", "-D/tmp", "--chdir=/tmp", "-Mother",
        "--clusters=other", "--signal=USR2", "--wait", "-W", "--help", "-V", "--version", "--uid=0",
        "-", "--", "-h", "-u", "-Q", "--quiet", "-H", "--hold", "script.sh", "/bin/true", "",
    ],
)  # fmt: skip
def test_options_that_would_lose_a_worker_are_refused(option: str) -> None:
    with pytest.raises(ProviderError) as refused:
        wanted({"sbatchOptions": [option]})
    assert refused.value.reason == "SbatchOptionRefused"
    assert repr(option) in str(refused.value)


def test_others_are_passed_on_as_they_are() -> None:
    given = ["--gres=gpu:1", "--mem 4G", "-c4", "-n", "--time=10", "--exclusive", "-x n[1-2]"]
    assert arguments(given) == [
        "--gres=gpu:1", "--mem", "4G", "-c4", "-n", "--time=10", "--exclusive", "-x", "n[1-2]",
    ]  # fmt: skip


def test_what_options_say_counts_over_the_fields() -> None:
    want = wanted({"partition": "a", "timeLimit": "10", "sbatchOptions": ["-pb,c", "--time 20"]})
    assert (want.partitions, want.limit) == (["b", "c"], "20")
    assert value_of(["--account=x", "-Ay"], "account", "A") == "y"
    assert wanted({"partition": "a"}).partitions == ["a"]


def submission(folder: str = "/shared/x", want: Wanted | None = None, index: int = 3) -> Submission:
    """One worker."""
    return Submission(UID, JOB, index, "ab12", folder, "/shared/worker.pyz", want or Wanted())


def test_a_job_is_one_element_of_an_array_with_its_identity() -> None:
    want = Wanted(partition="a100", account="ai", qos="normal", time_limit="04:00:00", gres="gpu:1")
    argv = command(submission("/sh%ared/x", want), 1001)
    sbatch = argv[argv.index("sbatch") :]
    assert sbatch == [
        "sbatch", "--parsable", "--array=3", f"--job-name={JOB}",
        f"--comment=codeswarm:{UID}:{JOB}:ab12", "--no-requeue", "--signal=B:USR1@300",
        "--chdir=/sh%ared/x", "--output=/sh%%ared/x/worker.log", "--open-mode=append",
        "--partition=a100", "--account=ai", "--qos=normal", "--time=04:00:00", "--gres=gpu:1",
    ]  # fmt: skip
    assert "--array=2" in command(submission(index=12), 10)
    assert not [one for one in command(submission(), 0) if one.startswith("--array")]


@pytest.mark.parametrize(
    ("out", "id"),
    [("17\n", 17), ("17;lab\n", 17), ("a site says hello\n17\n", 17), ("", None), ("no\n", None)],
)
def test_the_id_is_what_sbatch_prints_last(out: str, id: int | None) -> None:
    assert job_id(out) == id


# --- the script, run ---------------------------------------------------------------------------


def start(
    folder: Path, one: Submission, job: str = "17", path: str = os.environ["PATH"]
) -> subprocess.Popen[str]:
    """Start a batch script as slurmd would, but for its environment."""
    batch = folder / "batch.sh"
    if not batch.exists():
        batch.write_text(script(one))
    env = {"PATH": path, "SLURM_JOB_ID": job, "SLURMD_NODENAME": "n1"}
    shell = ["bash", "-l"] if one.wanted.setup else ["sh"]
    pipe = subprocess.PIPE
    return subprocess.Popen([*shell, str(batch)], env=env, stdout=pipe, stderr=pipe, text=True)


def run(
    folder: Path, one: Submission, job: str = "17", path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    """Run a batch script to its end."""
    with start(folder, one, job, path) as process:
        out, errors = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A program that says how it was started."""
    path = tmp_path / "it's $a worker.py"
    path.write_text("import os, sys; print(sys.argv[1:], os.environ['CODESWARM_NODE_ID'])")
    return path


def made(tmp_path: Path, worker: Path, want: Wanted, name: str = "job") -> tuple[Path, Submission]:
    """A worker's folder and its submission."""
    folder = tmp_path / name
    folder.mkdir()
    return folder, Submission(UID, JOB, 3, "ab12", str(folder), str(worker), want)


@pytest.mark.parametrize("name", ["plain", "a b", "$(id)", "'\"`;&|*?\\", "-n", "ü\n%s"])
def test_a_worker_begins_once_whatever_its_folder_is_called(
    tmp_path: Path, worker: Path, name: str
) -> None:
    folder, one = made(tmp_path, worker, Wanted(python=sys.executable), name)
    first = run(folder, one)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.strip() == f"{[str(folder)]} n1"
    assert (folder / "claim").read_text() == "17 ab12\n"
    for job in ("17", "18"):
        again = run(folder, one, job)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert (folder / "claim").read_text() == "17 ab12\n"
    assert not (folder / "failure").exists()


def test_without_hard_links_a_worker_begins_once_too(tmp_path: Path, worker: Path) -> None:
    folder, one = made(tmp_path, worker, Wanted(python=sys.executable))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ln").write_text("#!/bin/sh\nexit 1\n")
    (tools / "ln").chmod(0o700)
    for said in (f"{[str(folder)]} n1", ""):
        ended = run(folder, one, path=f"{tools}:{os.environ['PATH']}")
        assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, said, "")
    assert (folder / "claim").read_text() == "17 ab12\n"
    assert sorted(path.name for path in folder.iterdir()) == ["batch.sh", "claim"]


def test_of_many_jobs_that_begin_at_once_one_becomes_the_worker(
    tmp_path: Path, worker: Path
) -> None:
    folder, one = made(tmp_path, worker, Wanted(python=sys.executable))
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(lambda job: run(folder, one, str(job)), range(17, 33)))
    assert [e.returncode for e in ended] == [0] * 16
    assert [e.stdout.strip() for e in ended if e.stdout] == [f"{[str(folder)]} n1"]
    assert sorted(path.name for path in folder.iterdir()) == ["batch.sh", "claim"]


def test_a_job_that_cannot_become_the_worker_leaves_no_secrets(
    tmp_path: Path, worker: Path
) -> None:
    folder, one = made(tmp_path, worker, Wanted(python="/none"))
    (folder / "env").write_text("{}")
    assert run(folder, one).returncode == 1
    assert failure(folder)["reason"] == "PythonNotFound"
    assert not (folder / "env").exists()


def failure(folder: Path) -> dict[str, str]:
    """What the script left."""
    return dict(json.loads((folder / "failure").read_text()))


def test_a_node_without_python_says_so(tmp_path: Path, worker: Path) -> None:
    folder, one = made(tmp_path, worker, Wanted(python='/no "such\\ python'))
    assert run(folder, one).returncode == 1
    assert failure(folder)["reason"] == "PythonNotFound"
    assert '/no "such\\ python (pythonPath)' in failure(folder)["message"]


def test_setup_commands_change_what_the_worker_starts_with(tmp_path: Path, worker: Path) -> None:
    setup = ("python_home() { echo changed; }", "export CODESWARM_NODE_ID=$(python_home) # why")
    folder, one = made(tmp_path, worker, Wanted(python=sys.executable, setup=setup))
    assert run(folder, one).stdout.strip() == f"{[str(folder)]} changed"


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (("true", "echo why >&2; (exit 3)"), "the second setup command ended with exit status 3"),
        (("true", "exit 3"), "a setup command ended the script"),
    ],
)
def test_a_setup_command_that_fails_says_so(
    tmp_path: Path, worker: Path, setup: tuple[str, ...], said: str
) -> None:
    folder, one = made(tmp_path, worker, Wanted(python=sys.executable, setup=setup))
    ended = run(folder, one)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert failure(folder)["reason"] == "SetupFailed"
    assert said in failure(folder)["message"]


def test_a_time_limit_that_nears_before_the_worker_has_begun(tmp_path: Path, worker: Path) -> None:
    setup = ("kill -USR1 $$", "touch never")
    folder, one = made(tmp_path, worker, Wanted(python=sys.executable, setup=setup))
    ended = run(folder, one)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert failure(folder)["reason"] == "TimeLimitTooShort"
    assert not (folder / "never").exists()


def test_a_time_limit_that_nears_while_python_starts_is_told_to_the_worker(tmp_path: Path) -> None:
    """On a busy file system that takes seconds, and by itself the signal would just end it."""
    slow = tmp_path / "slow python"
    slow.write_text(
        f"#!/bin/bash\n[ \"$2\" = -c ] || {{ touch '{tmp_path}/starts'; sleep 0.5; }}\n"
        f'exec {sys.executable} "$@"\n'
    )
    slow.chmod(0o700)
    folder, one = made(tmp_path, build(tmp_path), Wanted(python=str(slow)))
    told = {"job": JOB, "index": 3, "runtime": "mock", "agent": {}, "pollSeconds": 0.1}
    (folder / "worker.json").write_text(json.dumps(told))
    with start(folder, one) as process:
        until((tmp_path / "starts").exists, "Python's start")
        process.send_signal(signal.SIGUSR1)
        assert process.wait(20) == 0
    outbox = (folder / "mailbox" / "outbox" / f"{JOB}_03.jsonl").read_text()
    last = json.loads(outbox.splitlines()[-1])["data"]
    assert last == {"status": "stopped", "reason": "TimeLimit"}


def test_a_folder_that_cannot_be_written_is_no_success(tmp_path: Path, worker: Path) -> None:
    folder, one = made(tmp_path, worker, Wanted())
    text = script(one).replace(str(folder), "/proc/none")
    ended = subprocess.run(["sh", "-c", text], capture_output=True, check=False)
    assert ended.returncode != 0


@given(st.lists(st.from_regex(r"\A-[^\x00-\x1f]{0,30}\Z"), max_size=4))
def test_any_option_is_refused_or_passed_on(options: list[str]) -> None:
    try:
        argv = arguments(options)
    except ProviderError as error:
        assert error.reason == "SbatchOptionRefused"
    else:
        assert len(argv) >= len(options)
