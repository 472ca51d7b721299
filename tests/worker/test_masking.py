"""Secrets do not get into records, and raw traffic comes only when it was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.harness import Worker, block
from worker.masking import MASK, MIN_CHARS, Masker
from worker.outbox import Outbox
from worker.turn import MAX_TRACE_CHARS

Make = Callable[..., Worker]
SECRET = 'k3y "with" quotes\\ and ümlaut'
KEY = "-----BEGIN KEY-----\nAAAAB3NzaC1yc2EAAAADAQABAAABgQC7\n-----END KEY-----\n"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        "https://x/?k=k3y%20%22with%22%20quotes%5C%20and%20%C3%BCmlaut",
        KEY,
        "AAAAB3NzaC1yc2EAAAADAQABAAABgQC7",
        json.dumps([KEY]),
    ],
)
def test_a_secret_is_found_however_it_is_spelled(text: str) -> None:
    masker = Masker([SECRET, KEY])
    assert masker.finds(json.dumps(text))
    masked = masker.mask(f"before {text} after")
    assert MASK in masked and masked.startswith("before ") and masked.endswith(" after")
    assert "AAAAB3Nz" not in masked and "ümlaut" not in masked


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_secret_with_quotes_is_found_in_json_within_a_record(tmp_path: Path, times: int) -> None:
    secret, text = '{"key": "hush\\hush"}', '{"key": "hush\\hush"}'
    for _ in range(times):
        text = json.dumps({"arguments": text})
    outbox = Outbox(tmp_path / "out", "j", "n", masker=Masker([secret]))
    outbox.emit("assistant", {"text": text})
    outbox.close()
    assert "hush" not in (tmp_path / "out").read_text()


def test_short_values_and_none_are_left_alone() -> None:
    assert Masker(["true", "", " \n"]).mask("true it is") == "true it is"
    assert not Masker().finds("anything")


@given(st.text(min_size=MIN_CHARS).filter(lambda s: len(s.strip()) >= MIN_CHARS), st.text())
def test_no_record_holds_a_secret_and_all_stay_json(secret: str, around: str) -> None:
    masker = Masker([secret])
    data = {"text": around + secret, "list": [secret, 1, None, {secret: True}]}
    body = json.dumps(data)
    assert masker.finds(body)
    masked = masker.mask_all(json.loads(body))
    assert masked["list"][0].strip() == MASK and masked["list"][1:3] == [1, None]
    assert not masker.finds(json.dumps(masked)) or secret.strip() in MASK


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef.ghijkl-123",
        '{"headers": {"x-api-key": "abcdef.ghijkl-123"}}',
        r'{"body": "{\"access_token\": \"abcdef.ghijkl-123\"}"}',
        "sk-abcdef-ghijkl-123-abcdef",
        "ghp_abcdefghijklmnopqrstuvwxyz0123",
        "eyJabcdefghi.eyJabcdefghi.abcdefghi",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_what_looks_like_a_credential_is_taken_out_of_traffic(text: str) -> None:
    masked = Masker().mask_traffic(text)
    assert MASK in masked and "abcdef" not in masked.lower()


def test_ordinary_traffic_is_left_as_it_is() -> None:
    text = '{"method": "turn/start", "id": 3, "params": {"text": "the key to it is the token"}}'
    assert Masker().mask_traffic(text) == text


def test_secrets_can_come_later() -> None:
    masker = Masker(["first-secret"])
    masker.add(["later-secret", "short"])
    assert masker.mask("first-secret later-secret short") == f"{MASK} {MASK} short"


def told(worker: Worker) -> str:
    return worker.outbox.read_text()


def with_env(make_worker: Make, values: dict[str, str], **config: Any) -> Worker:
    worker = make_worker(**config)
    env = worker.base / "env"
    env.write_text(json.dumps(values))
    env.chmod(0o600)
    return worker


def test_what_an_agent_prints_and_says_is_masked(make_worker: Make) -> None:
    values = {"API_KEY": "hush-hush-hush", "MODE": "not-a-secret-at-all"}
    worker = with_env(make_worker, values, secretNames=["API_KEY"]).start()
    done = worker.ask(block({"run": 'echo "$API_KEY $MODE"'}, {"say": "it is hush-hush-hush"}))
    assert done == {"status": "completed", "answer": f"it is {MASK}"}
    output = worker.wait("command_completed")["data"]["output"]
    assert output == f"{MASK} not-a-secret-at-all\n"
    assert "hush-hush" not in told(worker) and "hush-hush" not in worker.log()


def test_without_a_list_every_value_counts_as_secret(make_worker: Make) -> None:
    worker = with_env(make_worker, {"MODE": "not-a-secret-at-all"}).start()
    assert worker.ask(block({"say": "not-a-secret-at-all"}))["answer"] == MASK


def test_a_failures_message_is_masked_too(make_worker: Make) -> None:
    worker = with_env(make_worker, {"API_KEY": "hush-hush-hush"}, secretNames=["API_KEY"]).start()
    done = worker.ask(block({"run": 'echo "$API_KEY"; exit 3'}))
    assert done["status"] == "failed" and MASK in done["error"]["message"]
    assert "hush-hush" not in told(worker)


# --- raw traffic -------------------------------------------------------------------------------


class Sink:
    """Stands for an outbox."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, data: dict[str, Any], injection: str | None = None) -> None:
        self.records.append((event, data))

    def flush(self) -> None:
        pass


def trace(tmp_path: Any, environ: dict[str, str], *messages: tuple[str, str]) -> list[Any]:
    """What a turn tells of raw traffic."""
    from tests.worker.harness import user
    from worker.config import Config
    from worker.runtimes.base import Runtime, TurnContext
    from worker.scope import TurnScope
    from worker.turn import Turns

    class Talking(Runtime):
        def turn(self, prompt: str, context: TurnContext) -> str:
            for direction, text in messages:
                context.trace(direction, text)
            return "done"

    config = Config(
        base=tmp_path, job="j", node="n", index=0, runtime="x", workspace=tmp_path / "repo",
        stores=tmp_path / "s", env={"API_KEY": "hush-hush-hush"},
    )  # fmt: skip
    marks = dict.fromkeys(("CODESWARM_JOB_ID", "CODESWARM_NODE_ID", "CODESWARM_BASE_DIR"), "x")
    sink = Sink()
    turns = Turns(config, sink, Talking(), {**marks, **environ})  # type: ignore[arg-type]
    assert turns.run(user("hi", "u.1"), TurnScope())  # type: ignore[arg-type]
    return [data for event, data in sink.records if event == "session_trace"]


def test_traffic_is_told_only_on_request(tmp_path: Any) -> None:
    said = ("->", '{"id": 1}')
    assert trace(tmp_path, {}, said) == []
    assert trace(tmp_path, {"CODESWARM_CAPTURE_ALL_SESSION": "0"}, said) == []
    on = {"CODESWARM_CAPTURE_ALL_SESSION": "1"}
    assert trace(tmp_path, on, said, ("<-", "hush-hush-hush and sk-abcdefghijklmnopqrst")) == [
        {"direction": "->", "text": '{"id": 1}'},
        {"direction": "<-", "text": f"{MASK} and {MASK}"},
    ]


def test_a_long_message_is_cut_after_it_was_masked(tmp_path: Any) -> None:
    on = {"CODESWARM_CAPTURE_ALL_SESSION": "1"}
    long = "x" * (MAX_TRACE_CHARS - 4) + "hush-hush-hush" + "y" * 10
    (found,) = trace(tmp_path, on, ("<-", long))
    assert len(found["text"]) == MAX_TRACE_CHARS and found["text"].endswith("x[mas")
    assert found["cut"] == len(MASK) - 4 + 10


def test_the_tokens_of_a_login_that_codex_takes_over_are_secret(tmp_path: Any) -> None:
    from worker.config import AgentConfig, Config
    from worker.runtimes.codex_home import CodexHome

    token = "access-token-of-a-login"
    user = tmp_path / "home" / ".codex"
    user.mkdir(parents=True)
    login = {"auth_mode": "chatgpt", "tokens": {"access_token": token, "account_id": "short"}}
    (user / "auth.json").write_text(json.dumps(login))
    config = Config(
        base=tmp_path, job="j", node="n", index=0, runtime="codex", workspace=tmp_path / "repo",
        stores=tmp_path / "s", agent=AgentConfig(codex={"inheritLogin": True}),
    )  # fmt: skip
    home = CodexHome(config, {"HOME": str(tmp_path / "home")})
    assert home.tokens() == []
    home.write()
    assert home.tokens() == [token]
    (home.path / "auth.json").write_text("{torn")
    assert home.tokens() == []


def test_so_is_what_a_provider_of_the_users_is_told_to_send(tmp_path: Any) -> None:
    from worker.config import AgentConfig, Config
    from worker.runtimes.codex_home import CodexHome

    user = tmp_path / "home" / ".codex"
    user.mkdir(parents=True)
    (user / "config.toml").write_text(
        'model_provider = "gateway"\n[model_providers.gateway]\nname = "Gateway"\n'
        'base_url = "https://llm.example.com/v1"\n'
        'http_headers = {"X-Key" = "header-of-the-gateway", "X-Team" = "ours"}\n'
        'experimental_bearer_token = "bearer-of-the-gateway"\n'
    )
    config = Config(
        base=tmp_path, job="j", node="n", index=0, runtime="codex", workspace=tmp_path / "repo",
        stores=tmp_path / "s", agent=AgentConfig(codex={"inheritLogin": True}),
    )  # fmt: skip
    home = CodexHome(config, {"HOME": str(tmp_path / "home")})
    home.write()
    assert sorted(home.tokens()) == ["bearer-of-the-gateway", "header-of-the-gateway"]
