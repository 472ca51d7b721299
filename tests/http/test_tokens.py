"""Token counters: each token once, whatever attempts, restarts and foldings there are."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.usage import ZERO, Usage, to_status
from controller.http import tokens as module
from controller.http.tokens import Spender, Tokens
from controller.reconcile.attempts import _shortened, fold_old_attempts
from controller.reconcile.infos import task_info
from controller.reconcile.world import World

NAMESPACE = "default"


class Life:
    """A Task and those who count what it uses; ``counted`` is what they should have counted."""

    def __init__(self) -> None:
        self.attempts: list[dict] = []
        self.folded: dict = {}
        self.version = 0
        self.phase = "Pending"
        self.tokens, self.world = Tokens(), World()
        self.counted: dict[str, int] = {}
        self.see()

    def object(self) -> dict:
        self.version += 1
        status = {"phase": self.phase, "attempts": [dict(a) for a in self.attempts]}
        if self.folded:
            status["folded"] = self.folded
        return {
            "apiVersion": "codeswarm.dev/v1alpha1",
            "kind": "Task",
            "metadata": {
                "name": "demo.a",
                "namespace": NAMESPACE,
                "uid": "uid-1",
                "resourceVersion": str(self.version),
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"project": "demo"},
            "status": status,
        }

    def see(self, *, initial: bool = False) -> None:
        obj = self.object()
        before, info = self.world.observe_task(obj)
        self.tokens.task(before, info, obj, initial)

    # --- what may happen -----------------------------------------------------------------------

    def begin(self, _model: str, _count: int) -> None:
        if self.attempts and self.attempts[-1]["state"] == "Running":
            return
        number = self.attempts[-1]["number"] + 1 if self.attempts else 1
        status = {
            "attempts": [
                *map(_shortened, self.attempts),
                {"number": number, "injectionId": f"uid-1.{number}", "swarm": "builders",
                 "worker": 0, "job": f"j-{number}", "state": "Running"},
            ],
            "folded": self.folded,
        }  # fmt: skip
        fold_old_attempts(status)
        self.attempts, self.folded = status["attempts"], status["folded"]
        self.phase = "Running"
        self.see()

    def use(self, model: str, count: int) -> None:
        if not self.attempts or self.attempts[-1]["state"] != "Running":
            return
        self._add(model, count)
        self.see()

    def _add(self, model: str, count: int) -> None:
        rows = self.attempts[-1].setdefault("usage", [])
        row = next((r for r in rows if r["model"] == model), None)
        if row is None:
            row = {"session": model, "model": model, **to_status(ZERO)}
            rows.append(row)
        row["inputTokens"] += count
        row["totalTokens"] += count
        if model == "two":  # the other one has no price
            row["costUsd"] = str(Decimal(row["inputTokens"]) / 1000)
        self.counted[model] = self.counted.get(model, 0) + count

    def end(self, model: str, count: int) -> None:
        """The last that is used comes with the end, in one write."""
        if not self.attempts or self.attempts[-1]["state"] != "Running":
            return
        if count % 2:
            self._add(model, count)
        self.attempts[-1]["state"] = "Succeeded" if count % 3 else "Failed"
        self.phase = "Succeeded" if count % 3 else "Waiting"
        self.see()

    def see_again(self, _model: str, _count: int) -> None:
        self.see()

    def restart(self, _model: str, _count: int) -> None:
        self.tokens, self.world = Tokens(), World()
        self.counted = {}
        self.see(initial=True)


steps = st.lists(
    st.tuples(
        st.sampled_from(["begin", "use", "use", "end", "see_again", "restart"]),
        st.sampled_from(["one", "two"]),
        st.integers(1, 1000),
    ),
    max_size=60,
)


@given(steps)
def test_every_token_is_counted_once(script):
    life = Life()
    before: dict[Spender, Usage] = {}
    for step, model, count in script:
        getattr(life, step)(model, count)
        if step == "restart":
            before = {}
        for spender, used in before.items():
            assert used.input <= life.tokens.totals[spender].input, "a counter fell"
        before = dict(life.tokens.totals)
        assert {s.model: u.input for s, u in before.items()} == life.counted
        true = {m: Decimal(c) / 1000 for m, c in life.counted.items() if m == "two"}
        assert {s.model: c for s, c in life.tokens.costs.items()} == true
        assert all(s.swarm == "builders" and s.project == "demo" for s in before)


def test_more_than_ten_attempts_are_not_counted_again_when_folded():
    life = Life()
    for count in range(1, 16):
        life.begin("", 0)
        life.use("one", count)
        life.end("one", 6)
    assert life.folded["attempts"] == 5
    assert {s.model: u.input for s, u in life.tokens.totals.items()} == {"one": 120}


def test_names_of_models_are_cleaned_and_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_MODELS", 3)
    life = Life()
    life.begin("", 0)
    for model in ("a\nb", "x" * 100, "", "four", "five"):
        life.use(model, 1)
    assert {s.model: u.input for s, u in life.tokens.totals.items()} == {
        "a?b": 1,
        "x" * 64: 1,
        "unknown": 1,
        "other": 2,
    }


def swarm(*rows, model="m"):
    return {
        "apiVersion": "codeswarm.dev/v1alpha1",
        "kind": "Swarm",
        "metadata": {
            "name": "builders",
            "namespace": NAMESPACE,
            "uid": "uid-2",
            "resourceVersion": "1",
        },
        "spec": {},
        "status": {
            "workers": [
                {
                    "job": job,
                    "phase": "Idle",
                    "systemUsage": [
                        {"session": "s", "model": model, "costUsd": str(count)}
                        | to_status(Usage(input=count))
                    ],
                }
                for job, count in rows
            ],
        },
    }


def test_system_prompts_count_for_their_swarm():
    tokens, world = Tokens(), World()

    def see(obj, initial=False):
        tokens.swarm(world.observe_swarm(obj)[1], obj, initial)

    see(swarm(("a", 100)), initial=True)
    assert tokens.totals == {}
    see(swarm(("a", 130), ("b", 5)))
    see(swarm(("b", 6)))
    see(swarm(("b", 6)))
    spender = Spender(NAMESPACE, "builders", "", "m")
    assert tokens.totals == {spender: Usage(input=36)}
    assert tokens.costs == {spender: Decimal(36)}


def test_what_is_gone_is_dropped():
    life = Life()
    life.begin("", 0)
    life.use("one", 1)
    life.tokens.swarm(life.world.observe_swarm(swarm(("a", 1)))[1], swarm(("a", 1)), False)
    life.tokens.prune(life.world)
    assert {s.project for s in life.tokens.totals} == {"demo", ""}
    life.tokens.prune(World())
    assert life.tokens.totals == {} and life.tokens._system == {}
    info = life.world.forget_task(task_info(life.object()).key)
    life.tokens.gone(info)
    assert life.tokens._open == {}
