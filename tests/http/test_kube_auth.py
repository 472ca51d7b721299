"""Kubernetes' reviews behind tokens: what is asked, what is kept, and what is not let through."""

from __future__ import annotations

import asyncio

import pytest

from controller.http import kube_auth as module
from controller.http.auth import AuthUnavailable, Forbidden, Unauthenticated
from controller.http.kube_auth import KubeAuth
from controller.store.base import Forbidden as Refused
from controller.store.base import StoreUnavailable
from tests.http.harness import run, until

USERS = {
    "good": {"username": "ada", "uid": "1", "groups": ["dev"], "extra": {"scope": ["x"]}},
    "weak": {"username": "eve"},
    "empty": {"username": ""},
}


class FakeApi:
    """Answers reviews from a table."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.most = self.running = 0

    async def request(self, method, path, *, body):
        assert method == "POST"
        self.asked.append((path, body))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1
        if body["kind"] == "TokenReview":
            user = USERS.get(body["spec"]["token"])
            return {"status": {"authenticated": user is not None, "user": user or {}}}
        allowed = body["spec"]["user"] == "ada"
        return {"status": {"allowed": allowed}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked_with(token="good", namespace="default", **given):
    api, clock = FakeApi(), Clock()
    for name, value in given.items():
        setattr(api, name, value)
    return api, clock, KubeAuth(api, clock=clock), token, namespace


def test_a_user_with_the_right_gets_in_and_is_asked_about_as_the_server_named_them():
    api, _, auth, *args = asked_with()
    assert run(auth.authorize(*args)).name == "ada"
    review, access = api.asked
    assert review[0] == "/apis/authentication.k8s.io/v1/tokenreviews"
    assert review[1]["apiVersion"] == "authentication.k8s.io/v1"
    assert access[0] == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert access[1]["spec"] == {
        "user": "ada", "uid": "1", "groups": ["dev"], "extra": {"scope": ["x"]},
        "resourceAttributes": {
            "namespace": "default", "verb": "get", "group": "codeswarm.dev", "resource": "tasks",
            "subresource": "transcript",
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("token", "error", "words"),
    [
        ("unknown", Unauthenticated, "does not know this token"),
        ("empty", Unauthenticated, "does not know this token"),
        ("weak", Forbidden, 'eve may not get tasks/transcript in the namespace "default"'),
    ],
)
def test_others_do_not(token, error, words):
    _, _, auth, *args = asked_with(token)
    with pytest.raises(error, match=words):
        run(auth.authorize(*args))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StoreUnavailable("internal words"), "cannot be asked about the token now"),
        (Refused("internal words"), "needs the ClusterRole codeswarm-auth"),
    ],
)
def test_a_server_that_does_not_answer_lets_nobody_in(error, words):
    _, _, auth, *args = asked_with(error=error)
    with pytest.raises(AuthUnavailable, match=words) as refusal:
        run(auth.authorize(*args))
    assert "internal words" not in str(refusal.value)


def test_answers_are_kept_for_ten_seconds_by_token_and_namespace():
    async def scenario():
        api, clock, auth, *_ = asked_with()
        for _ in range(5):
            await auth.authorize("good", "default")
        assert len(api.asked) == 2
        await auth.authorize("good", "other")
        assert len(api.asked) == 3
        clock.now = 9.9
        await auth.authorize("good", "default")
        assert len(api.asked) == 3
        clock.now = 10.1
        await auth.authorize("good", "default")
        assert len(api.asked) == 5
        assert not any("good" in repr(key) for key in auth._users._answers)

    run(scenario())


def test_a_refusal_is_kept_too_and_a_failure_is_not():
    async def scenario():
        api, _, auth, *_ = asked_with()
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await auth.authorize("unknown", "default")
        assert len(api.asked) == 1
        api.error = StoreUnavailable("away")
        with pytest.raises(AuthUnavailable):
            await auth.authorize("good", "default")
        api.error = None
        assert (await auth.authorize("good", "default")).name == "ada"

    run(scenario())


def test_one_question_answers_all_who_ask_it_meanwhile():
    async def scenario():
        api, _, auth, *_ = asked_with(gate=asyncio.Event())
        asking = [asyncio.ensure_future(auth.authorize("good", "default")) for _ in range(20)]
        await until(lambda: api.running, "the review to begin")
        asking[0].cancel()  # one who gives up does not end it for the others
        await asyncio.sleep(0)
        api.gate.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [f.name for f in found[1:]] == ["ada"] * 19
        assert len(api.asked) == 2

    run(scenario())


def test_guessing_tokens_takes_few_connections_and_is_cut_off(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 10)

    async def scenario():
        api, _, auth, *_ = asked_with(gate=asyncio.Event())
        guesses = [asyncio.ensure_future(auth.authorize(f"g{n}", "default")) for n in range(50)]
        await until(lambda: api.running == module.REVIEWS, "the reviews to begin")
        api.gate.set()
        found = await asyncio.gather(*guesses, return_exceptions=True)
        assert api.most == module.REVIEWS
        assert sum(isinstance(f, Unauthenticated) for f in found) == 10
        assert sum(isinstance(f, AuthUnavailable) for f in found) == 40
        assert (await auth.authorize("good", "default")).name == "ada"

    run(scenario())


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 5)

    async def scenario():
        _, _, auth, *_ = asked_with()
        for number in range(20):
            with pytest.raises(Unauthenticated):
                await auth.authorize(f"g{number}", "default")
        assert len(auth._users._answers) == 5 and not auth._users._asked

    run(scenario())
