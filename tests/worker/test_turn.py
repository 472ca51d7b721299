"""A turn's last record, whatever its runtime makes of the end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.worker.harness import user
from worker.config import Config
from worker.errors import TurnError
from worker.outbox import Outbox
from worker.runtimes.base import Runtime, TurnContext
from worker.scope import TurnScope
from worker.turn import Turns


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan])
def test_a_wait_that_is_no_number_is_not_told(tmp_path: Path, seconds: float) -> None:
    class Refused(Runtime):
        def turn(self, prompt: str, context: TurnContext) -> str:
            raise TurnError("quota", "try again some day", seconds)

    config = Config(
        base=tmp_path, job="j", node="n", index=0, runtime="x", workspace=tmp_path / "repo",
        stores=tmp_path / "s",
    )  # fmt: skip
    marks = dict.fromkeys(("CODESWARM_JOB_ID", "CODESWARM_NODE_ID", "CODESWARM_BASE_DIR"), "x")
    outbox = Outbox(tmp_path / "out.jsonl", "j", "n")
    assert not Turns(config, outbox, Refused(), marks).run(user("hi", "u.1"), TurnScope())  # type: ignore[arg-type]
    outbox.close()
    *_, last = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert last["event"] == "turn_complete"
    assert last["data"]["error"] == {"class": "quota", "message": "try again some day"}
