"""moto's EC2, made more like the real one: the states that instances and volumes pass through.

moto jumps from one end state to the next, lets a volume be attached any number of times, and
invents addresses.  Here an instance is ``pending``, ``running``, ``shutting-down``, ``terminated``
each for its time, a volume is attached to one instance only and goes when the machine lets it go,
and addresses are loopback ones.  What stands behind an instance is a ``Hypervisor``'s.

Everything of moto is called while ``World.lock`` is held.  Only the server's process imports this.
"""

from __future__ import annotations

import copy
import itertools
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import EC2Backend, ec2_backends, instances
from moto.ec2.models.security_groups import SecurityGroup
from moto.iam import iam_backends

from tests.cloud.knobs import Hypervisor, Knobs, NoMachines

ACCOUNT = "123456789012"
CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
_TICK = 0.02
_FINISH = instances.Instance.terminate
_DETACH = EC2Backend.detach_volume


class World:
    """The EC2 of this process.

    Args:
        network: second part of the addresses that instances get (``127.<network>.0.0/16``).
    """

    def __init__(self, network: int) -> None:
        self.lock = threading.RLock()
        self.knobs = Knobs()
        self.hypervisor: Hypervisor = NoMachines()
        self.action = ""
        """Of the request that is being answered."""
        self.parameters: dict[str, str] = {}
        self.impaired: set[str] = set()
        """Instances whose status checks fail."""
        self._doomed: list[tuple[str, str]] = []
        self._network = network
        self._hosts = itertools.count(10)
        self._stop = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    # --- what there is ---------------------------------------------------------------------------

    def seed(self, region: str, public_key: str) -> None:
        """Make what manifests name: subnets, security groups, a key pair, an instance profile."""
        backend = ec2_backends[ACCOUNT][region]
        backend.import_key_pair("codeswarm", public_key.encode(), {})
        vpc = backend.create_vpc("10.0.0.0/16")
        for number, letter in (("1", "a"), ("2", "b")):
            zone = f"{region}{letter}"
            subnet = backend.create_subnet(vpc.id, f"10.0.{number}.0/24", availability_zone=zone)
            made = backend.subnets[zone].pop(subnet.id)
            made.id = f"subnet-{number}"
            backend.subnets[zone][made.id] = made
            group = f"sg-{number}"
            backend.groups[vpc.id][group] = SecurityGroup(backend, group, group, group, vpc.id)
        iam = iam_backends[ACCOUNT]["aws"]
        if not any(p.name == "codeswarm-worker" for p in iam.instance_profiles.values()):
            iam.create_instance_profile("codeswarm-worker", "/", [])

    def instances(self) -> Iterator[Any]:
        """All instances of all regions, those that ended too."""
        for backend in list(ec2_backends[ACCOUNT].values()):
            for reservation in backend.reservations.values():
                yield from reservation.instances

    def instance(self, instance_id: str) -> Any:
        """One of them. Raises: KeyError."""
        for instance in self.instances():
            if instance.id == instance_id:
                return instance
        raise KeyError(instance_id)

    def volumes(self) -> Iterator[Any]:
        """All volumes but those that instances were made with."""
        for backend in list(ec2_backends[ACCOUNT].values()):
            yield from (v for v in backend.volumes.values() if not getattr(v, "is_root", False))

    def describe(self) -> dict[str, Any]:
        """Instances and volumes as they are, whatever is hidden."""
        with self.lock:
            return {
                "instances": [
                    {
                        "id": i.id,
                        "state": i.state,
                        "type": i.instance_type,
                        "private_ip": i.private_ip or "",
                        "public_ip": i.public_ip or "",
                        "spot": i.lifecycle == "spot",
                        "reason": i.state_reason.code,
                        "zone": i.availability_zone,
                        "user_data": str(i.user_data or ""),
                        "tags": {tag["key"]: tag["value"] for tag in i.get_tags()},
                    }
                    for i in self.instances()
                ],
                "volumes": [
                    {
                        "id": v.id,
                        "state": v.status,
                        "size": int(v.size),
                        "type": v.volume_type,
                        "zone": v.availability_zone,
                        "attached_to": v.attachment.instance.id if v.attachment else "",
                        "tags": {tag["key"]: tag["value"] for tag in v.get_tags()},
                    }
                    for v in self.volumes()
                ],
            }

    # --- behind the controller's back ------------------------------------------------------------

    def end(self, instance_id: str, code: str, message: str, transition: str) -> None:
        """Terminate an instance for a reason of EC2's."""
        with self.lock:
            self.leave(self.instance(instance_id), "shutting-down", code, message, transition)

    def stop(self, instance_id: str) -> None:
        """Stop an instance as a person on the console does."""
        with self.lock:
            self.instance(instance_id).stop()

    def doom(self, code: str, message: str, times: int) -> None:
        """Let the next instances end before they run, for a reason of EC2's."""
        with self.lock:
            self._doomed += [(code, message)] * times

    def calm(self) -> None:
        """Let things take as long as at first, and no instance be doomed or ill."""
        with self.lock:
            self.knobs = Knobs()
            self._doomed.clear()
            self.impaired.clear()

    def impair(self, instance_id: str, on: bool) -> None:
        """Let the status checks of an instance fail, or not any more."""
        with self.lock:
            (self.impaired.add if on else self.impaired.discard)(instance_id)

    def forget(self, instance_id: str) -> None:
        """Let nobody see a terminated instance any more, as EC2 does after an hour."""
        with self.lock:
            for backend in ec2_backends[ACCOUNT].values():
                for reservation in backend.reservations.values():
                    kept = [i for i in reservation.instances if i.id != instance_id]
                    reservation.instances = kept

    # --- time ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let time stand still."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            with self.lock:
                for name in self.hypervisor.fallen():
                    self._fall(self.instance(name))
                for instance in list(self.instances()):
                    self._advance(instance)
                for volume in list(self.volumes()):
                    self._move(volume)

    def _advance(self, instance: Any) -> None:
        """Take an instance to its next state if it is time."""
        if time.monotonic() < instance.due:
            return
        if instance.state == "pending" and self._doomed:
            code, message = self._doomed.pop(0)
            self.leave(instance, "shutting-down", code, message, code)
        elif instance.state == "pending":
            set_state(instance, "running")
            self._boot(instance)
        elif instance.rebooting and not self.hypervisor.alive(instance.id):
            instance.rebooting = False
            self._boot(instance)
        elif instance.state == "stopping" and not self.hypervisor.alive(instance.id):
            set_state(instance, "stopped")
        elif instance.state == "shutting-down" and not self.hypervisor.alive(instance.id):
            reason, transition = instance.state_reason, instance._reason
            _FINISH(instance)
            self.hypervisor.discard(instance.id)
            instance.state_reason, instance._reason = reason, transition
            for nic in instance.nics.values():
                nic.public_ip = None

    def _boot(self, instance: Any) -> None:
        self.hypervisor.start(instance)
        for device, block in instance.get_block_device_mapping:
            volume = instance.ec2_backend.volumes.get(block.volume_id)
            if volume is not None and not getattr(volume, "is_root", False):
                self.hypervisor.plug(instance.id, volume, device)

    def _move(self, volume: Any) -> None:
        """Take a volume's attachment to its next state if it is time."""
        attachment = volume.attachment
        if attachment is None or time.monotonic() < getattr(attachment, "due", 0.0):
            return
        holder = attachment.instance
        if attachment.status == "attaching":
            attachment.status = "attached"
            if holder.state == "running":
                self.hypervisor.plug(holder.id, volume, attachment.device)
        elif attachment.status in ("detaching", "busy"):
            if self.hypervisor.unplug(holder.id, volume.id, force=attachment.force):
                _DETACH(volume.ec2_backend, volume.id, holder.id, attachment.device)
            else:
                attachment.status = "busy"

    def _fall(self, instance: Any) -> None:
        """An instance has shut itself down."""
        stops = instance.instance_initiated_shutdown_behavior == "stop"
        self.leave(
            instance,
            "stopping" if stops else "shutting-down",
            "Client.InstanceInitiatedShutdown",
            "Instance initiated shutdown",
            "",
        )

    def leave(self, instance: Any, state: str, code: str, message: str, transition: str) -> Any:
        """Begin to end or stop an instance. Returns: its state of before."""
        before = copy.copy(instance._state)
        if instance.state in ("terminated", "shutting-down", state):
            return before
        was_running = instance.state in ("running", "stopping")
        set_state(instance, state, self.knobs.ending_seconds)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
        instance._reason = transition.format(now=now)
        instance.state_reason = instances.StateReason(message and f"{code}: {message}", code)
        if was_running:
            self.hypervisor.kill(instance.id)
        return before

    def hidden(self, made: float) -> bool:
        """Whether what was made then cannot be seen by this request."""
        if self.action in ("", "RunInstances", "CreateVolume"):
            return False
        return time.monotonic() - made < self.knobs.hide_seconds

    def address(self) -> tuple[str, str]:
        """The next private and public address."""
        number = next(self._hosts)
        high, low = divmod(number, 250)
        return (
            f"127.{self._network}.{high + 1}.{low + 1}",
            f"127.{self._network}.{high + 129}.{low + 1}",
        )


def set_state(instance: Any, state: str, seconds: float = 0.0) -> None:
    """Let an instance be in a state, for so long at least."""
    instance._state = instances.InstanceState(state, CODES[state])
    instance.due = time.monotonic() + seconds


def dumps(value: Any) -> str:
    """JSON of what control answers."""
    return json.dumps(value, default=str)
