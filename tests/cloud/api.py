"""EC2's API on loopback for tests: ``CloudApi(path)`` starts one in a process of its own.

It takes every call of boto3 that moto knows.  What ``shared`` manifests name is there: the image
``ami-12c6146b``, ``subnet-1`` and ``sg-1`` (zone ``us-east-1a``), ``subnet-2`` and ``sg-2``
(``us-east-1b``), the key pair ``codeswarm`` (its private half is ``key``) and the instance profile
``codeswarm-worker``.  Faults are caused by its methods; each goes on for as many requests as it
says, or until ``mend``.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REGION = "us-east-1"
AMI = "ami-12c6146b"
SUBNET = "subnet-1"
GROUP = "sg-1"
KEY_NAME = "codeswarm"
PROFILE = "codeswarm-worker"
_ROOT = Path(__file__).parents[2]


class CloudApi:
    """EC2's API.

    Args:
        path: folder for all its files; made if it is not there.
        knobs: how long things take (``tests.cloud.ec2.Knobs``).
    """

    prefix: tuple[str, ...] = ()
    """Before the server's command."""
    options: tuple[str, ...] = ()
    """Of the server."""

    def __init__(self, path: Path, **knobs: Any) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.key = path / "key"
        self.log = path / "cloud.log"
        self._clients: dict[str, Any] = {}
        if not self.key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", KEY_NAME]
            subprocess.run([*command, "-f", str(self.key)], check=True, timeout=30)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.prefix,
                    sys.executable,
                    "-m",
                    "tests.cloud",
                    str(path),
                    *self.options,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
                env=_environment(),
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise AssertionError(f"the test cloud does not start:\n{self.log.read_text()}")
        told = json.loads(line)
        self.network: int = told["network"]
        self.port: int = told["port"]
        self.set(**knobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and all that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process.stdout.close()

    # --- how to reach it -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """``endpointUrl``."""
        return f"http://127.{self.network}.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables with which boto3 finds credentials, and looks for none elsewhere."""
        nowhere = str(self.path / "nowhere")
        return {
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody",
            "AWS_SESSION_TOKEN": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        }

    def parameters(self, **more: Any) -> dict[str, Any]:
        """A provider block for it."""
        return {
            "region": REGION,
            "endpointUrl": self.url,
            "amiId": AMI,
            "instanceType": "c7i.4xlarge",
            "subnetId": SUBNET,
            "securityGroupIds": [GROUP],
            "keyName": KEY_NAME,
            "identityFile": str(self.key),
            "usePrivateIp": True,
            "workspaceRoot": "/shared/codeswarm",
            "volume": {"sizeGib": 8},
            **more,
        }

    def client(self, service: str = "ec2") -> Any:
        """A client of boto3, with credentials of its own and without retries."""
        import boto3
        from botocore.config import Config

        if service in self._clients:
            return self._clients[service]
        client = self._clients[service] = boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="AKIATESTTESTTESTTEST",
            aws_secret_access_key="not-a-secret-of-anybody",
            config=Config(retries={"total_max_attempts": 1}),
        )
        return client

    def call(self, name: str, **values: Any) -> Any:
        """Ask the server's process for something. Raises: AssertionError."""
        connection = http.client.HTTPConnection(f"127.{self.network}.0.2", self.port, timeout=60)
        try:
            connection.request("POST", "/", json.dumps({"call": name, "with": values}))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    # --- what it is like -------------------------------------------------------------------------

    def set(self, **knobs: Any) -> None:
        """Change how long things take (``tests.cloud.ec2.Knobs``)."""
        self.call("set", **knobs)

    def seed(self, region: str) -> None:
        """Make what manifests name in another region too."""
        self.call("seed", region=region)

    def quota(self, code: str, value: float) -> None:
        """Set what Service Quotas says of a quota of EC2, vCPUs; it is 1,000 before."""
        self.call("quota", code=code, value=value)

    def capacity(self, left: int) -> None:
        """Let so many instances more be launched; -1: any number.

        Those that are too many are not launched, or the request is refused
        (``InsufficientInstanceCapacity``) where its MinCount is not reached.
        """
        self.set(capacity=left)

    def hide_new(self, seconds: float) -> None:
        """Eventual consistency: what is younger is not listed, and unknown by its id."""
        self.set(hide_seconds=seconds)

    def hide_tags(self, seconds: float) -> None:
        """Eventual consistency: tags that were changed are seen as they were before."""
        self.set(hide_tags_seconds=seconds)

    def honour_tokens(self, on: bool = True) -> None:
        """Take a ClientToken as EC2 does, or ignore it, as moto does."""
        self.set(honour_tokens=on)

    # --- what happened ---------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many requests came, by action."""
        return dict(self.call("counts"))

    def requests(self, action: str = "") -> list[dict[str, Any]]:
        """The last requests (``action``, ``at``, ``parameters`` as they came)."""
        return list(self.call("requests", action=action))

    def instances(self) -> dict[str, dict[str, Any]]:
        """All instances by id, as they are whatever is hidden."""
        return {i["id"]: i for i in self.call("describe")["instances"]}

    def volumes(self) -> dict[str, dict[str, Any]]:
        """All volumes by id, without the root volumes of instances."""
        return {v["id"]: v for v in self.call("describe")["volumes"]}

    def live(self) -> list[str]:
        """Ids of the instances that have not ended."""
        return [i for i, said in self.instances().items() if said["state"] != "terminated"]

    def leftovers(self, uid: str = "") -> list[str]:
        """Instances that have not ended, and volumes; of one swarm or of all."""
        told = self.call("describe")
        found = [i for i in told["instances"] if i["state"] != "terminated"] + told["volumes"]
        mine = [f for f in found if not uid or f["tags"].get("codeswarm.dev/swarm-uid") == uid]
        return [said["id"] for said in mine]

    # --- faults ----------------------------------------------------------------------------------

    def throttle(self, action: str, times: int = 1) -> None:
        """Refuse requests as too many."""
        self.refuse(action, "RequestLimitExceeded", "Request limit exceeded.", times, status=503)

    def refuse(
        self, action: str, code: str, message: str = "no", times: int = 1, *, status: int = 400
    ) -> None:
        """Refuse requests with one of AWS's codes; ``*`` is any action, times -1 is always."""
        self.call(
            "add", action=action, kind="refuse", times=times, code=code, message=message,
            status=status,
        )  # fmt: skip

    def lose_answer(self, action: str, times: int = 1) -> None:
        """Do what is asked for, and cut the connection before the answer."""
        self.call("add", action=action, kind="lose", times=times)

    def cut_request(self, action: str, times: int = 1) -> None:
        """Cut the connection before anything is done."""
        self.call("add", action=action, kind="cut", times=times)

    def slow(self, action: str, seconds: float, times: int = -1) -> None:
        """Wait before requests are seen to."""
        self.call("add", action=action, kind="slow", times=times, seconds=seconds)

    def mend(self, action: str = "") -> None:
        """Let an action, or all, go well again."""
        self.call("mend", action=action)

    def expire_credentials(self, on: bool = True) -> None:
        """Refuse everything as signed with a session that is over."""
        self.call("expire", on=on)

    def down(self) -> None:
        """Let nobody connect, and cut who is."""
        self.call("down")

    def up(self) -> None:
        """Listen again, at the same address."""
        self.call("up")

    def reset(self) -> None:
        """End all faults, and forget requests; instances and volumes stay."""
        self.call("reset")
        self.call("up")

    # --- behind the controller's back ------------------------------------------------------------

    def stop(self, instance: str) -> None:
        """Stop an instance, as somebody on the console."""
        self.call("stop", instance_id=instance)

    def terminate(
        self,
        instance: str,
        code: str = "Client.UserInitiatedShutdown",
        message: str = "User initiated shutdown",
        transition: str = "User initiated ({now})",
    ) -> None:
        """Terminate an instance, as somebody on the console or for a reason of EC2's."""
        self.call("end", instance_id=instance, code=code, message=message, transition=transition)

    def take_spot(self, instance: str) -> None:
        """Take a spot instance away, at once."""
        self.terminate(
            instance, "Server.SpotInstanceTermination", "Instance terminated by spot",
            "Service initiated ({now})",
        )  # fmt: skip

    def doom(self, code: str, message: str = "", times: int = 1) -> None:
        """Let the next instances go from pending to terminated, for a reason of EC2's
        (``Client.VolumeLimitExceeded``, ``Server.InternalError``)."""
        self.call("doom", code=code, message=message, times=times)

    def impair(self, instance: str, on: bool = True) -> None:
        """Let the status checks of an instance fail."""
        self.call("impair", instance_id=instance, on=on)

    def forget(self, instance: str) -> None:
        """Let a terminated instance be listed no more, as EC2 does after an hour."""
        self.call("forget", instance_id=instance)

    def clear(self) -> None:
        """Terminate every instance, wait for that, and delete every volume; forget it all."""
        self.reset()
        self.set(hide_seconds=0.0)
        for instance in self.live():
            self.terminate(instance)
        self.wait(lambda: not self.live(), "instances end")
        client = self.client()
        for volume in self.volumes():
            client.delete_volume(VolumeId=volume)
        for instance in self.instances():
            self.forget(instance)
        self.reset()

    def wait(self, condition: Any, what: str, seconds: float = 20.0) -> None:
        """Poll until a condition holds. Raises: AssertionError."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(0.02)


def _environment() -> dict[str, str]:
    """Of the server: moto checks what it is given, and knows our images only."""
    return {
        **{name: value for name, value in os.environ.items() if name[:4] != "AWS_"},
        "MOTO_AMIS_PATH": str(Path(__file__).with_name("amis.json")),
        "MOTO_ENABLE_AMI_VALIDATION": "true",
        "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
        "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    }
