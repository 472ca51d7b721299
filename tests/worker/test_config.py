"""What a worker is told at its start."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from worker import config
from worker.config import load, take_env, workspace_subdir
from worker.errors import ConfigError

CRDS = Path(__file__).parents[2] / "crds"


def write(base: Path, **values: Any) -> Path:
    (base / "worker.json").write_text(json.dumps({"job": "j-1", "runtime": "mock", **values}))
    return base


def test_all_that_is_given_is_taken(tmp_path: Path) -> None:
    agent = {
        "model": "m",
        "approvalPolicy": "on-request",
        "sandboxMode": "read-only",
        "networkAccess": True,
        "freshThreadPerPrompt": True,
        "mock": {"delaySeconds": 0.5},
        "codex": {"path": "/c"},
        "persona": {"path": "unused"},
    }
    config = load(
        write(
            tmp_path,
            index=3,
            node="n",
            agent=agent,
            systemPrompt="be kind",
            workspaceSubdir="a/b",
            hint="/tmp/h",
            stores="/s",
            heartbeatSeconds=2,
        ),
        {},
    )
    assert config.agent.model == "m" and config.agent.mock_delay_seconds == 0.5
    assert config.agent.fresh_thread_per_prompt and config.agent.network_access
    assert config.agent.codex == {"path": "/c"}
    assert config.workspace == tmp_path / "a" / "b"
    assert config.inbox == tmp_path / "mailbox" / "inbox" / "j-1_03.jsonl"
    assert config.outbox.name == "j-1_03.jsonl"
    assert (config.hint, config.stores) == (Path("/tmp/h"), Path("/s"))
    assert (config.system_prompt, config.heartbeat_seconds) == ("be kind", 2)


def test_what_is_absent_or_null_has_its_default(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    config = load(write(tmp_path, hint=None, agent=None, systemPrompt=None), environ)
    assert config.hint is None and config.system_prompt == ""
    assert config.agent.approval_policy == "never"
    assert config.workspace == tmp_path / "repo" and config.index == 0
    assert environ == {
        "CODESWARM_JOB_ID": "j-1",
        "CODESWARM_NODE_ID": "0",
        "CODESWARM_BASE_DIR": str(tmp_path),
    }


def test_the_environment_must_name_the_same_job(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CODESWARM_JOB_ID is 'other'"):
        load(write(tmp_path), {"CODESWARM_JOB_ID": "other"})


@pytest.mark.parametrize(
    "values",
    [
        {"job": "../x"},
        {"job": 5},
        {"runtime": None},
        {"index": -1},
        {"index": True},
        {"agent": []},
        {"agent": {"mock": {"delaySeconds": "1"}}},
        {"agent": {"networkAccess": "yes"}},
        {"systemPrompt": ["x"]},
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"worker\.json"):
        load(write(tmp_path, **values), {})


@pytest.mark.parametrize(
    "text", ["/etc", "..", "a/../../b", "", ".", "mailbox", "git/x", "secrets"]
)
def test_the_workspace_stays_in_the_folder_and_off_its_own_files(text: str) -> None:
    with pytest.raises(ConfigError, match="workspaceSubdir"):
        workspace_subdir(text)


@pytest.mark.parametrize("kind", ["swarms", "swarmclasses"])
def test_what_a_manifest_may_name_the_workspace_the_worker_takes(kind: str) -> None:
    rule = re.search(r"!\(self in \[('mailbox'.*?)\]\)", (CRDS / f"{kind}.yaml").read_text(), re.S)
    assert rule is not None
    assert set(re.findall(r"'([^']+)'", rule.group(1))) == config._OWN_NAMES


@pytest.mark.parametrize("text", ['{"A": "x y", "B_1": ""}', 'A="x y"\n\nB_1=""\n'])
def test_the_env_file_is_read_once_in_both_forms(tmp_path: Path, text: str) -> None:
    path = tmp_path / "env"
    path.write_text(text)
    assert take_env(path) == {"A": "x y", "B_1": ""}
    assert not path.exists()
    assert take_env(path) == {}


@pytest.mark.parametrize("text", ["A=plain", "A", '{"A": 1}', '{"1A": "x"}', "{", 'A="x\\u0000"'])
def test_a_bad_env_file_is_refused_without_its_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "env").write_text(text.replace("plain", "secret-value"))
    with pytest.raises(ConfigError, match="env: ") as caught:
        take_env(tmp_path / "env")
    assert "secret" not in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        load(tmp_path, {})
    (tmp_path / "worker.json").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})
    (tmp_path / "worker.json").unlink()
    (tmp_path / "worker.json").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path, {})
    (tmp_path / "worker.json").write_text("[]")
    with pytest.raises(ConfigError, match="a JSON object"):
        load(tmp_path, {})
