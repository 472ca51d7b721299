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
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Protocol

from moto.core.responses import ActionResult
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidInstanceIdError,
    InvalidVolumeIdError,
    VolumeInUseError,
)
from moto.ec2.models import EC2Backend, ec2_backends, instances
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.security_groups import SecurityGroup
from moto.ec2.responses.instances import InstanceResponse
from moto.iam import iam_backends

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
_INSTANCE_INIT = instances.Instance.__init__
_FINISH = instances.Instance.terminate
_ATTACH = EC2Backend.attach_volume
_DETACH = EC2Backend.detach_volume
_CREATE_VOLUME = EC2Backend.create_volume
_RESERVATIONS = EC2Backend.all_reservations


@dataclass
class Knobs:
    """How long things take, in seconds, and how things are."""

    pending_seconds: float = 0.05
    """Until a new instance runs."""
    boot_seconds: float = 0.2
    """From there until its sshd listens."""
    ending_seconds: float = 0.05
    """In which an instance is ``shutting-down`` or ``stopping``, at least."""
    attach_seconds: float = 0.02
    """In which a volume is ``attaching``."""
    hide_seconds: float = 0.0
    """For which new instances and volumes cannot be seen yet."""
    xen: bool = False
    """Volumes appear under the name that was asked for, not as NVMe devices."""
    honour_tokens: bool = False
    """A request with a ClientToken that was used before gets the answer of before."""
    capacity: int = -1
    """How many more instances can be launched; -1: any number."""

    def change(self, values: dict[str, Any]) -> None:
        """Set some of them. Raises: KeyError for a name there is not."""
        known = {field.name for field in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise KeyError(name)
            setattr(self, name, value)


class Hypervisor(Protocol):
    """What stands behind the instances; called while the world is locked, so at once."""

    def start(self, instance: Any) -> None:
        """An instance runs: boot its machine."""

    def kill(self, instance_id: str) -> None:
        """Begin to end a machine."""

    def alive(self, instance_id: str) -> bool:
        """Whether anything of a machine is still there."""

    def plug(self, instance_id: str, volume: Any, device: str) -> None:
        """A volume is attached."""

    def unplug(self, instance_id: str, volume_id: str, *, force: bool) -> bool:
        """A volume is to be detached; False as long as the machine has it mounted."""

    def drop(self, volume_id: str) -> None:
        """A volume is deleted."""

    def discard(self, instance_id: str) -> None:
        """An instance is terminated: its root volume is deleted."""

    def fallen(self) -> list[str]:
        """Instances whose machines have ended by themselves; each is named once."""


class NoMachines:
    """A hypervisor for tests that only need the API."""

    def start(self, instance: Any) -> None:
        pass

    def kill(self, instance_id: str) -> None:
        pass

    def alive(self, instance_id: str) -> bool:
        return False

    def plug(self, instance_id: str, volume: Any, device: str) -> None:
        pass

    def unplug(self, instance_id: str, volume_id: str, *, force: bool) -> bool:
        return True

    def drop(self, volume_id: str) -> None:
        pass

    def discard(self, instance_id: str) -> None:
        pass

    def fallen(self) -> list[str]:
        return []


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
        self._network = network
        self._hosts = itertools.count(10)
        self._stop = threading.Event()
        self._patch()
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
            self._leave(self.instance(instance_id), "shutting-down", code, message, transition)

    def stop(self, instance_id: str) -> None:
        """Stop an instance as a person on the console does."""
        with self.lock:
            self.instance(instance_id).stop()

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
        if instance.state == "pending":
            _set_state(instance, "running")
            self._boot(instance)
        elif instance.rebooting and not self.hypervisor.alive(instance.id):
            instance.rebooting = False
            self._boot(instance)
        elif instance.state == "stopping" and not self.hypervisor.alive(instance.id):
            _set_state(instance, "stopped")
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
        self._leave(
            instance,
            "stopping" if stops else "shutting-down",
            "Client.InstanceInitiatedShutdown",
            "Instance initiated shutdown",
            "",
        )

    def _leave(self, instance: Any, state: str, code: str, message: str, transition: str) -> Any:
        """Begin to end or stop an instance. Returns: its state of before."""
        before = copy.copy(instance._state)
        if instance.state in ("terminated", "shutting-down", state):
            return before
        was_running = instance.state in ("running", "stopping")
        _set_state(instance, state, self.knobs.ending_seconds)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
        instance._reason = transition.format(now=now)
        instance.state_reason = instances.StateReason(message and f"{code}: {message}", code)
        if was_running:
            self.hypervisor.kill(instance.id)
        return before

    # --- moto made so ----------------------------------------------------------------------------

    def _hidden(self, made: float) -> bool:
        """Whether what was made then cannot be seen by this request."""
        if self.action in ("", "RunInstances", "CreateVolume"):
            return False
        return time.monotonic() - made < self.knobs.hide_seconds

    def _address(self) -> tuple[str, str]:
        """The next private and public address."""
        number = next(self._hosts)
        high, low = divmod(number, 250)
        return (
            f"127.{self._network}.{high + 1}.{low + 1}",
            f"127.{self._network}.{high + 129}.{low + 1}",
        )

    def _patch(self) -> None:
        world = self

        def born(self: Any, *args: Any, **more: Any) -> None:
            private_before = more.pop("private_ip", None)
            _INSTANCE_INIT(self, *args, private_ip=private_before, **more)
            self.born = time.monotonic()
            self.rebooting = False
            _set_state(self, "pending", world.knobs.pending_seconds)
            private, public = world._address()
            for nic in self.nics.values():
                nic.private_ip_address = private
                nic.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": private}]
                if nic.public_ip:
                    nic.public_ip = public

        def start(self: Any) -> Any:
            before = copy.copy(self._state)
            if self.state not in ("stopped", "running", "pending"):
                raise EC2ClientError(
                    "IncorrectInstanceState",
                    f"The instance '{self.id}' is not in a state from which it can be started.",
                )
            if self.state == "stopped":
                _set_state(self, "pending", world.knobs.pending_seconds)
                self._reason, self.state_reason = "", instances.StateReason()
            return before

        def user(state: str) -> Any:
            def leave(self: Any) -> Any:
                return world._leave(
                    self,
                    state,
                    "Client.UserInitiatedShutdown",
                    "User initiated shutdown",
                    "User initiated ({now})",
                )

            return leave

        def reboot(self: Any) -> None:
            if self.state == "running":
                self.rebooting = True
                world.hypervisor.kill(self.id)

        instances.Instance.__init__ = born
        instances.Instance.reboot = reboot
        instances.Instance.start = start
        instances.Instance.stop = user("stopping")
        instances.Instance.terminate = user("shutting-down")
        InstanceResponse.terminate_instances = _terminate_instances
        self._patch_volumes()
        self._patch_looking()

    def _patch_looking(self) -> None:
        world = self

        def all_reservations(self: Any, filters: Any = None) -> Any:
            seen = []
            for reservation in _RESERVATIONS(self, filters):
                shown = [i for i in reservation.instances if not world._hidden(i.born)]
                if shown:
                    reservation.instances = shown
                    seen.append(reservation)
            return seen

        def describe_volumes(self: Any, volume_ids: Any = None, filters: Any = None) -> Any:
            found = [v for v in self.volumes.values() if not world._hidden(v.born)]
            missing = set(volume_ids or ()) - {v.id for v in found}
            if missing:
                raise InvalidVolumeIdError(sorted(missing)[0])
            if volume_ids:
                found = [v for v in found if v.id in volume_ids]
            return instances_filter(filters, found) if filters else found

        def get_volume(self: Any, volume_id: str) -> Any:
            volume = self.volumes.get(volume_id)
            if volume is None or world._hidden(volume.born):
                raise InvalidVolumeIdError(volume_id)
            return volume

        def do_resources_exist(self: Any, resource_ids: list[str]) -> bool:
            for known in resource_ids:
                if known.startswith("i-"):
                    self.get_instance(known)
                elif known.startswith("vol-"):
                    self.get_volume(known)
            return True

        from moto.ec2.utils import generic_filter as instances_filter

        EC2Backend.all_reservations = all_reservations
        EC2Backend.describe_volumes = describe_volumes
        EC2Backend.get_volume = get_volume
        EC2Backend.do_resources_exist = do_resources_exist

    def _patch_volumes(self) -> None:
        world = self
        init = Volume.__init__

        def born(self: Any, *args: Any, **more: Any) -> None:
            init(self, *args, **more)
            self.born = time.monotonic()
            self.is_root = world.action not in ("CreateVolume",)

        def attach(self: Any, volume_id: str, instance_id: str, device: str, *more: Any) -> Any:
            volume = self.get_volume(volume_id)
            if world.action != "AttachVolume":
                return _ATTACH(self, volume_id, instance_id, device, *more)
            instance = self.get_instance(instance_id)
            _may_attach(volume, instance, device)
            attachment = _ATTACH(self, volume_id, instance_id, device, *more)
            attachment.status = "attaching"
            attachment.due = time.monotonic() + world.knobs.attach_seconds
            return attachment

        def detach(self: Any, volume_id: str, instance_id: str, device: str) -> Any:
            if world.action != "DetachVolume":
                return _DETACH(self, volume_id, instance_id, device)
            volume = self.get_volume(volume_id)
            attachment = volume.attachment
            if attachment is None or (instance_id and attachment.instance.id != instance_id):
                raise EC2ClientError(
                    "IncorrectState", f"Volume '{volume_id}' is in the 'available' state."
                )
            if attachment.status not in ("detaching", "busy"):
                attachment.status = "detaching"
                attachment.due = time.monotonic() + world.knobs.attach_seconds
                attachment.force = False
            if world.parameters.get("Force", "").lower() == "true":
                attachment.force = True
            return attachment

        def delete(self: Any, volume_id: str) -> Any:
            volume = self.get_volume(volume_id)
            if volume.attachment is not None:
                raise VolumeInUseError(volume_id, volume.attachment.instance.id)
            world.hypervisor.drop(volume_id)
            return self.volumes.pop(volume_id)

        Volume.__init__ = born
        EC2Backend.attach_volume = attach
        EC2Backend.detach_volume = detach
        EC2Backend.delete_volume = delete


def _set_state(instance: Any, state: str, seconds: float = 0.0) -> None:
    instance._state = instances.InstanceState(state, CODES[state])
    instance.due = time.monotonic() + seconds


def _may_attach(volume: Any, instance: Any, device: str) -> None:
    """EC2's rules. Raises: EC2ClientError."""
    if volume.attachment is not None:
        raise EC2ClientError("VolumeInUse", f"{volume.id} is already attached to an instance")
    if instance.state in ("terminated", "shutting-down"):
        raise InvalidInstanceIdError(instance.id)
    if instance.state not in ("running", "stopped"):
        raise EC2ClientError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.availability_zone != instance.availability_zone:
        raise EC2ClientError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance "
            f"'{instance.id}'",
        )
    if device in instance.block_device_mapping:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def _terminate_instances(self: Any) -> ActionResult:
    """As moto's, without load balancers, and with the state that is."""
    ids = self._get_param("InstanceIds", [])
    self.error_on_dryrun()
    ended = self.ec2_backend.terminate_instances(ids)
    return ActionResult(
        {
            "TerminatingInstances": [
                {
                    "InstanceId": instance.id,
                    "CurrentState": {"Code": instance.state_code, "Name": instance.state},
                    "PreviousState": before,
                }
                for instance, before in ended
            ]
        }
    )


def dumps(value: Any) -> str:
    """JSON of what control answers."""
    return json.dumps(value, default=str)
