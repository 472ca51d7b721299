"""``apply`` and ``diff``: all or nothing, three-way, with the folder noted, and seen through."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cli.file_client import FileClient
from cli.following import Follower
from controller.runtime.home import Home
from controller.store.base import Key
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import attempt, condition, project, seed, set_status, swarm, task

SWARM = """\
apiVersion: codeswarm.dev/v1alpha1
kind: Swarm
metadata: {name: builders}
spec:
  replicas: 2
  agent: {runtime: mock}
  provider: {local: {}}
"""
PROMPT = """\
apiVersion: codeswarm.dev/v1alpha1
kind: Task
metadata: {name: hello}
spec: {target: {swarm: builders}, prompt: Say hello.}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two good documents."""
    path = tmp_path / "swarm.yaml"
    path.write_text(f"{SWARM}---\n{PROMPT}")
    return path


def test_created_then_unchanged_then_configured(run: Run, file: Path, started: list[str]) -> None:
    first = run("apply", "-f", str(file))
    assert first.exit_code == 0
    assert first.stdout.splitlines() == [
        "swarm.codeswarm.dev/builders created",
        "task.codeswarm.dev/hello created",
    ]
    assert len(started) == 1
    assert "builders unchanged" in run("apply", "-f", str(file)).stdout
    file.write_text(SWARM.replace("replicas: 2", "replicas: 3"))
    assert run("apply", "-f", str(file)).stdout == "swarm.codeswarm.dev/builders configured\n"


def test_dry_run_changes_nothing(run: Run, file: Path, db: Database, started: list[str]) -> None:
    result = run("apply", "-f", str(file), "--dry-run")
    assert "swarm.codeswarm.dev/builders created (dry run)" in result.stdout
    assert db.list("Swarm") == []
    assert started == []


def test_the_folder_of_the_manifest_is_noted(run: Run, file: Path, db: Database) -> None:
    run("apply", "-f", str(file))
    swarm_ = db.get(Key("Swarm", "default", "builders"))
    assert swarm_ is not None
    assert swarm_["metadata"]["annotations"]["codeswarm.dev/base-dir"] == str(file.parent)


def test_a_manifest_cannot_choose_another_folder(run: Run, tmp_path: Path, db: Database) -> None:
    path = tmp_path / "evil.yaml"
    annotated = "metadata: {name: builders, annotations: {codeswarm.dev/base-dir: /etc}}"
    path.write_text(SWARM.replace("metadata: {name: builders}", annotated))
    run("apply", "-f", str(path))
    swarm_ = db.get(Key("Swarm", "default", "builders"))
    assert swarm_ is not None
    assert swarm_["metadata"]["annotations"]["codeswarm.dev/base-dir"] == str(tmp_path)


def test_every_fault_is_told_and_nothing_applied(run: Run, tmp_path: Path, db: Database) -> None:
    path = tmp_path / "bad.yaml"
    bad_kind = PROMPT.replace("kind: Task", "kind: Tusk")
    bad_type = SWARM.replace("replicas: 2", "replicas: many").replace("builders", "second")
    path.write_text("---\n".join([SWARM, bad_kind, bad_type]))
    result = run("apply", "-f", str(path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert 'unknown kind "Tusk" (did you mean "Task"?)' in result.stderr
    assert "bad.yaml:18 (document 3) Swarm/second: spec.replicas: " in result.stderr
    assert result.stderr.rstrip().endswith("nothing was applied")
    assert db.list("Swarm") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a: [", "is not YAML"),
        (f"{SWARM}---\n{SWARM}", "is already described"),
        (SWARM.replace("mock}", "mock, extra: 1}"), "extra"),
        (SWARM.replace("v1alpha1", "v9"), 'unknown version "codeswarm.dev/v9"'),
        ("- 1\n", "is a list, not an object"),
    ],
)
def test_bad_manifests(run: Run, tmp_path: Path, db: Database, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    result = run("apply", "-f", str(path))
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert db.list("Swarm") == []


def test_a_file_that_is_not_there(run: Run, db: Database) -> None:
    result = run("apply", "-f", "nowhere.yaml")
    assert result.exit_code == 1
    assert result.stderr == "error: nowhere.yaml: there is no such file or folder\n"


def test_standard_input_and_namespace(run: Run, db: Database) -> None:
    assert run("apply", "-f", "-", "-n", "team-a", input=SWARM).exit_code == 0
    assert db.get(Key("Swarm", "team-a", "builders")) is not None
    named = SWARM.replace("{name: builders}", "{name: builders, namespace: team-b}")
    result = run("apply", "-f", "-", "-n", "team-a", input=named)
    assert result.exit_code == 1
    assert '"team-b"' in result.stderr


def test_what_the_manifest_does_not_name_stays(run: Run, tmp_path: Path, db: Database) -> None:
    path = tmp_path / "swarm.yaml"
    path.write_text(SWARM.replace("  replicas: 2\n", ""))
    run("apply", "-f", str(path))
    run("scale", "swarm/builders", "--replicas", "7")
    assert "unchanged" in run("apply", "-f", str(path)).stdout
    swarm_ = db.get(Key("Swarm", "default", "builders"))
    assert swarm_ is not None
    assert swarm_["spec"]["replicas"] == 7


def test_two_at_once(home: Home, db: Database, tmp_path: Path) -> None:
    """Two processes apply the same new file at the same time: each object is made once."""
    path = tmp_path / "many.yaml"
    path.write_text("---\n".join(PROMPT.replace("hello", f"hello-{n}") for n in range(20)))
    code = (
        "import sys; from cli.file_client import FileClient; from cli.main import cli\n"
        "FileClient.ensure_controller = lambda self, say: None\n"
        "sys.stdin.readline(); cli.main(['apply', '-f', sys.argv[1]])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate("go\n", timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    created = [out.count(" created\n") for out, _ in outputs]
    unchanged = [out.count(" unchanged\n") for out, _ in outputs]
    assert sum(created) == 20
    assert sum(unchanged) == 20
    assert len(db.list("Task")) == 20


def test_diff(run: Run, db: Database, file: Path) -> None:
    new = run("diff", "-f", str(file))
    assert new.exit_code == 1
    assert "+++ MERGED/codeswarm.dev.v1alpha1.Swarm.default.builders" in new.stdout
    run("apply", "-f", str(file))
    same = run("diff", "-f", str(file))
    assert (same.exit_code, same.stdout) == (0, "")
    file.write_text(SWARM.replace("replicas: 2", "replicas: 5"))
    changed = run("diff", "-f", str(file)).stdout.splitlines()
    assert "-  replicas: 2" in changed
    assert "+  replicas: 5" in changed
    file.write_text("a: [")
    assert run("diff", "-f", str(file)).exit_code == 2


def test_diff_hides_secrets(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {key: %s}\n"
    path.write_text(text % "first-value")
    run("apply", "-f", str(path))
    path.write_text(text % "second-value")
    out = run("diff", "-f", str(path)).stdout
    assert "*** (before)" in out
    assert "*** (after)" in out
    assert "Zmlyc3" not in out  # base64 of the first


def test_nothing_is_applied_onto_what_is_being_deleted(
    run: Run, db: Database, tmp_path: Path
) -> None:
    ending = swarm()
    ending["metadata"]["finalizers"] = ["codeswarm.dev/workers"]
    seed(db, ending)
    db.delete(Key("Swarm", "default", "builders"))
    path = tmp_path / "swarm.yaml"
    path.write_text(SWARM)
    result = run("apply", "-f", str(path))
    assert result.exit_code == 1
    assert "Swarm/builders: metadata.name: is being deleted; apply again when it is gone" in (
        result.stderr
    )


def test_wait_tells_what_happens(home: Home, db: Database) -> None:
    """The follower, while another thread plays the controller."""
    made = [seed(db, swarm()), seed(db, project()), seed(db, task("greeter.library"))]
    told: list[str] = []
    client = FileClient(home)
    watch = client.watch()
    follower = Follower(client, watch, told.append)
    keys = [Key("Swarm", "default", "builders"), Key("Project", "default", "greeter")]

    def control() -> None:
        with Database(home.state) as other:
            ready = [condition("Ready", "True")]
            set_status(other, made[0], phase="Running", ready="2/2", conditions=ready)
            set_status(other, made[2], phase="Running", attempts=[attempt()])
            set_status(
                other,
                made[2],
                phase="Succeeded",
                attempts=[attempt(state="Succeeded")],
                filesChangedCount=1,
            )
            merges = [{"task": "library", "commit": "a" * 40, "state": "merged"}]
            set_status(
                other,
                made[1],
                phase="Completed",
                progress="1/1",
                branch="codeswarm/greeter/integration",
                integration={"merges": merges, "headCommit": "b" * 40},
                conditions=[condition("Complete", "True")],
            )

    follower.begin(keys)
    thread = threading.Thread(target=control)
    thread.start()
    settled = follower.run(keys, 30)
    thread.join()
    client.close()
    texts = [line.split("  ", 1)[1] for line in told]
    assert all(outcome.good for outcome in settled.values())
    assert "swarm/builders 2/2 workers ready" in texts
    assert "task/greeter.library started on builders/0" in texts
    assert "task/greeter.library succeeded: 1 file" in texts
    assert texts[-2:] == [
        "project/greeter merged library (1/1)",
        "project/greeter complete (1/1): codeswarm/greeter/integration at bbbbbbbbbb",
    ]
    assert len(texts) == len(set(texts))


def test_wait_exit_codes(run: Run, db: Database, tmp_path: Path) -> None:
    path = tmp_path / "swarm.yaml"
    path.write_text(SWARM)
    late = run("apply", "-f", str(path), "--wait", "--timeout", "0.05")
    assert late.exit_code == 3
    assert "timed out waiting for swarm/builders" in late.stderr
    swarm_ = db.get(Key("Swarm", "default", "builders"))
    assert swarm_ is not None
    broken = [condition("Ready", "False", "LaunchFailed", "no such program")]
    set_status(db, swarm_, phase="Failed", conditions=broken)
    failed = run("apply", "-f", str(path), "--wait", "--timeout", "5s")
    assert failed.exit_code == 4
    assert "swarm/builders: failed: LaunchFailed: no such program" in failed.stderr
