"""Kubernetes' own answer to who asks: TokenReview, then SubjectAccessReview, kept for seconds.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from controller.http.auth import AuthUnavailable, Forbidden, Identity, Unauthenticated
from controller.resources.kinds import API_VERSION
from controller.store.base import Forbidden as Refused
from controller.store.base import StoreError
from controller.store.kube_api import Api

KEEP_SECONDS = 10.0
MAX_KEPT = 2000
REVIEWS = 4
"""At a time: guessing tokens must not take the connections that the controller works with."""
MAX_WAITING = 64
REVIEW_SECONDS = 10.0
_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_GROUP = API_VERSION.partition("/")[0]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token belongs to, as the API server says it."""

    name: str
    attributes: dict[str, Any]
    """As a SubjectAccessReview takes them."""


class Kept(Generic[T]):
    """Answers for some seconds; who asks meanwhile waits for the one that is under way."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: dict[Any, tuple[float, T]] = {}
        self._asked: dict[Any, asyncio.Future[T]] = {}

    async def get(self, key: Any, ask: Callable[[], Awaitable[T]]) -> T:
        """The kept answer, or a new one. Raises: what ``ask`` raises."""
        kept = self._answers.get(key)
        if kept is not None and self._clock() - kept[0] < self._seconds:
            return kept[1]
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.ensure_future(ask())
            asked.add_done_callback(lambda done: self._take(key, done))
        return await asyncio.shield(asked)

    def _take(self, key: Any, done: asyncio.Future[T]) -> None:
        del self._asked[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._answers.pop(key, None)
        self._answers[key] = (self._clock(), done.result())
        while len(self._answers) > MAX_KEPT:
            del self._answers[next(iter(self._answers))]


class KubeAuth:
    """Who may ``get tasks/transcript`` in a namespace may read transcripts and events there.

    Args:
        api: as the controller's ServiceAccount, which needs the ClusterRole ``codeswarm-auth``.
        clock: monotonic seconds.
    """

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._users: Kept[User | None] = Kept(KEEP_SECONDS, clock)
        self._allowed: Kept[bool] = Kept(KEEP_SECONDS, clock)
        self._slots = asyncio.Semaphore(REVIEWS)
        self._waiting = 0

    async def authorize(self, token: str, namespace: str) -> Identity:
        """As ``Authenticator.authorize``."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        user = await self._users.get(digest, lambda: self._review(token))
        if user is None:
            raise Unauthenticated("the API server does not know this token")
        if not await self._allowed.get((digest, namespace), lambda: self._access(user, namespace)):
            raise Forbidden(
                f'{user.name} may not get tasks/transcript in the namespace "{namespace}" '
                "(ClusterRole codeswarm-view or codeswarm-transcripts gives it)"
            )
        return Identity(user.name)

    async def _review(self, token: str) -> User | None:
        status = await self._ask(_TOKENS, "TokenReview", {"token": token})
        found = status.get("user") or {}
        if status.get("authenticated") is not True or not found.get("username"):
            return None
        fields = {"user": found["username"], "uid": found.get("uid")}
        fields |= {"groups": found.get("groups"), "extra": found.get("extra")}
        return User(found["username"], {k: v for k, v in fields.items() if v})

    async def _access(self, user: User, namespace: str) -> bool:
        asked = {
            "namespace": namespace,
            "verb": "get",
            "group": _GROUP,
            "resource": "tasks",
            "subresource": "transcript",
        }
        spec = {"resourceAttributes": asked, **user.attributes}
        status = await self._ask(_ACCESS, "SubjectAccessReview", spec)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _ask(self, path: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        """A review's status. Raises: AuthUnavailable."""
        if self._waiting >= MAX_WAITING:
            raise AuthUnavailable("too many tokens to review: try again in a moment")
        group = path.split("/")[2]
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        self._waiting += 1
        try:
            async with asyncio.timeout(REVIEW_SECONDS), self._slots:
                answer = await self._api.request("POST", path, body=body)
        except Refused:
            text = f"the controller may not create {kind}s: it needs the ClusterRole codeswarm-auth"
            raise AuthUnavailable(text) from None
        except (StoreError, TimeoutError):
            # Not with the server's words: they are not for whom nobody knows yet.
            raise AuthUnavailable("the API server cannot be asked about the token now") from None
        finally:
            self._waiting -= 1
        status = answer.get("status")
        return status if isinstance(status, dict) else {}
