"""What can go wrong between a client and EC2, in front of moto: a WSGI application.

It counts and keeps requests, refuses, delays and loses them as it was told to, and does what moto
does not: RunInstances of up to MaxCount, ClientToken, quotas.
"""

from __future__ import annotations

import io
import json
import re
import time
import urllib.parse
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from tests.cloud.ec2 import World

_KEPT = 5000
_EC2 = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
<RequestID>7a62c49f-347e-4fc4-9331-6e8e00000000</RequestID></Response>"""
_STS = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>\
<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
<RequestId>7a62c49f-347e-4fc4-9331-6e8e00000000</RequestId></ErrorResponse>"""

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Lost(ConnectionError):
    """The connection is to be cut instead of an answer."""


@dataclass
class Fault:
    """One thing that goes wrong, with an action (``*``: any), some times."""

    action: str
    kind: str
    """``refuse``, ``lose`` (the answer), ``cut`` (before anything is done) or ``slow``."""
    times: int
    code: str = ""
    message: str = ""
    status: int = 400
    seconds: float = 0.0


class Front:
    """The application that clients see.

    Args:
        app: moto's.
        world: which it serves.
    """

    def __init__(self, app: App, world: World) -> None:
        self._app = app
        self._world = world
        self._faults: list[Fault] = []
        self._answers: dict[str, tuple[str, str, list[Any], bytes]] = {}
        self.counts: Counter[str] = Counter()
        self.kept: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.quotas: dict[str, float] = {}
        """By code; without one, 1,000 vCPUs."""
        self.expired = False

    # --- control ---------------------------------------------------------------------------------

    def add(self, **fault: Any) -> None:
        """Let something go wrong; ``times`` -1: until ``mend``."""
        with self._world.lock:
            self._faults.append(Fault(**fault))

    def mend(self, action: str = "") -> None:
        """Let an action, or all of them, go well again."""
        with self._world.lock:
            self._faults = [f for f in self._faults if action and f.action != action]

    def left(self) -> int:
        """How often something will still go wrong."""
        with self._world.lock:
            return sum(fault.times for fault in self._faults)

    # --- requests --------------------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        given = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        action = target.rpartition(".")[2] if target else given.get("Action", "")
        with self._world.lock:
            self.counts[action] += 1
            self.kept.append({"action": action, "at": time.time(), "parameters": given})
            fault = self._next(action)
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        elif fault is not None and fault.kind == "cut":
            raise Lost
        elif fault is not None and fault.kind == "refuse":
            return _refuse(environ, start_response, fault.status, fault.code, fault.message)
        if self.expired:
            code = "RequestExpired" if given.get("Version") == "2016-11-15" else "ExpiredToken"
            message = "The security token included in the request is expired"
            return _refuse(environ, start_response, 400, code, message)
        if action == "GetServiceQuota":
            return self._quota(json.loads(body), start_response)
        status, headers, answer = self._serve(environ, action, given, body)
        if fault is not None and fault.kind == "lose":
            raise Lost
        start_response(status, headers)
        return [answer]

    def _next(self, action: str) -> Fault | None:
        for fault in self._faults:
            if fault.action in (action, "*") and fault.times:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                return fault
        return None

    def _serve(
        self, environ: dict[str, Any], action: str, given: dict[str, str], body: bytes
    ) -> tuple[str, list[Any], bytes]:
        knobs = self._world.knobs
        with self._world.lock:
            again = self._again(environ, given)
            if again is not None:
                return again
            if action == "RunInstances":
                count = int(given.get("MaxCount", "1"))
                if 0 <= knobs.capacity < count:
                    count = knobs.capacity
                if count < int(given.get("MinCount", "1")):
                    return _answer(
                        environ, 500, "InsufficientInstanceCapacity",
                        "We currently do not have sufficient capacity in the Availability Zone "
                        "you requested. Our system will be working on provisioning additional "
                        "capacity.",
                    )  # fmt: skip
                body = urllib.parse.urlencode({**given, "MinCount": count}).encode()
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
            self._world.action, self._world.parameters = action, given
            try:
                answer = _collect(self._app, environ)
            finally:
                self._world.action, self._world.parameters = "", {}
            if answer[0].startswith("200"):
                if action == "RunInstances" and knobs.capacity > 0:
                    knobs.capacity -= count
                if action in ("RunInstances", "CreateVolume") and given.get("ClientToken"):
                    self._answers[given["ClientToken"]] = (_essence(given), *answer)
            return answer

    def _again(
        self, environ: dict[str, Any], given: dict[str, str]
    ) -> tuple[str, list[Any], bytes] | None:
        """What a request with a ClientToken that is known gets."""
        before = self._answers.get(given.get("ClientToken", ""))
        if not self._world.knobs.honour_tokens or before is None:
            return None
        essence, *answer = before
        if essence != _essence(given):
            return _answer(
                environ, 400, "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in "
                "previous request(s).",
            )  # fmt: skip
        made = set(re.findall(r"<instanceId>(i-[0-9a-f]+)<", answer[2].decode()))
        if made and not any(i.id in made and i.state != "terminated" for i in self._instances()):
            return _answer(
                environ, 400, "IdempotentInstanceTerminated",
                "The request for the client token has been processed, and its instances have "
                "been terminated.",
            )  # fmt: skip
        return (answer[0], answer[1], answer[2])

    def _instances(self) -> Iterable[Any]:
        return self._world.instances()

    def _quota(self, asked: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        code = asked.get("QuotaCode", "")
        value = self.quotas.get(code, 1000.0)
        quota = {"QuotaCode": code, "ServiceCode": asked.get("ServiceCode"), "Value": value}
        start_response("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"Quota": quota}).encode()]


def _essence(given: dict[str, str]) -> str:
    return json.dumps(sorted(given.items()))


def _collect(app: App, environ: dict[str, Any]) -> tuple[str, list[Any], bytes]:
    """What an application answers, whole."""
    begun: list[Any] = []

    def start_response(status: str, headers: list[Any], *_: Any) -> None:
        begun[:] = [status, headers]

    answer = app(environ, start_response)
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return begun[0], begun[1], body


def _answer(
    environ: dict[str, Any], status: int, code: str, message: str
) -> tuple[str, list[Any], bytes]:
    """An error, in the form of the service that is asked."""
    kind = "text/xml"
    if "HTTP_X_AMZ_TARGET" in environ:
        kind = "application/x-amz-json-1.1"
        body = json.dumps({"__type": code, "message": message})
    else:
        form = _STS if "/sts/" in environ.get("HTTP_AUTHORIZATION", "") else _EC2
        body = form.format(code=escape(code), message=escape(message))
    return f"{status} Refused", [("Content-Type", kind)], body.encode()


def _refuse(
    environ: dict[str, Any], start_response: Any, status: int, code: str, message: str
) -> Iterable[bytes]:
    line, headers, body = _answer(environ, status, code, message)
    start_response(line, headers)
    return [body]
