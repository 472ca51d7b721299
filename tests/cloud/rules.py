"""moto's EC2 made to obey the real one's rules: the changes that ``World`` needs.

Only the server's process imports this; every call comes with the world's lock held.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidInstanceIdError,
    InvalidVolumeIdError,
    VolumeInUseError,
)
from moto.ec2.models import EC2Backend, instances
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import generic_filter

from tests.cloud.ec2 import World, set_state

_ATTACH = EC2Backend.attach_volume
_DETACH = EC2Backend.detach_volume
_RESERVATIONS = EC2Backend.all_reservations
_INSTANCE = instances.Instance.__init__
_CREATE_TAGS = EC2Backend.create_tags


def patch(world: World) -> None:
    """Change moto for this process."""

    def born(self: Any, *args: Any, **more: Any) -> None:
        private_before = more.pop("private_ip", None)
        _INSTANCE(self, *args, private_ip=private_before, **more)
        self.born = time.monotonic()
        self.rebooting = False
        set_state(self, "pending", world.knobs.pending_seconds)
        private, public = world.address()
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
            set_state(self, "pending", world.knobs.pending_seconds)
            self._reason, self.state_reason = "", instances.StateReason()
        return before

    def user(state: str) -> Any:
        def leave(self: Any) -> Any:
            return world.leave(
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
    _patch_volumes(world)
    _patch_looking(world)
    _patch_tags(world)
    _patch_health(world)


def _patch_looking(world: World) -> None:
    def all_reservations(self: Any, filters: Any = None) -> Any:
        seen = []
        for reservation in _RESERVATIONS(self, filters):
            shown = [i for i in reservation.instances if not world.hidden(i.born)]
            if shown:
                reservation.instances = shown
                seen.append(reservation)
        return seen

    def describe_volumes(self: Any, volume_ids: Any = None, filters: Any = None) -> Any:
        found = [v for v in self.volumes.values() if not world.hidden(v.born)]
        missing = set(volume_ids or ()) - {v.id for v in found}
        if missing:
            raise InvalidVolumeIdError(sorted(missing)[0])
        if volume_ids:
            found = [v for v in found if v.id in volume_ids]
        return generic_filter(filters, found) if filters else found

    def get_volume(self: Any, volume_id: str) -> Any:
        volume = self.volumes.get(volume_id)
        if volume is None or world.hidden(volume.born):
            raise InvalidVolumeIdError(volume_id)
        return volume

    def do_resources_exist(self: Any, resource_ids: list[str]) -> bool:
        for known in resource_ids:
            if known.startswith("i-"):
                self.get_instance(known)
            elif known.startswith("vol-"):
                self.get_volume(known)
        return True

    EC2Backend.all_reservations = all_reservations
    EC2Backend.describe_volumes = describe_volumes
    EC2Backend.get_volume = get_volume
    EC2Backend.do_resources_exist = do_resources_exist


def _patch_tags(world: World) -> None:
    before: dict[tuple[str, str], tuple[float, str | None]] = {}
    """When a tag was set, and what it was until then."""

    def create_tags(self: Any, resource_ids: list[str], tags: dict[str, str]) -> bool:
        if world.action == "CreateTags":
            for resource in resource_ids:
                for key in tags:
                    old = self.tags.get(resource, {}).get(key)
                    before[resource, key] = (time.monotonic(), old)
        return bool(_CREATE_TAGS(self, resource_ids, tags))

    def get_tags(self: Any) -> list[dict[str, str]]:
        seen = []
        for key, value in self.ec2_backend.tags.get(self.id, {}).items():
            at, old = before.get((self.id, key), (0.0, None))
            if world.action and time.monotonic() - at < world.knobs.hide_tags_seconds:
                value = old
            if value is not None:
                seen.append({"key": key, "value": value, "resource_id": self.id})
        return seen

    EC2Backend.create_tags = create_tags
    TaggedEC2Resource.get_tags = get_tags


def _patch_health(world: World) -> None:
    def status(self: Any) -> dict[str, Any]:
        if self.state != "running":
            return {"Status": "not-applicable"}
        bad = self.id in world.impaired
        return {
            "Details": [{"Name": "reachability", "Status": "failed" if bad else "passed"}],
            "Status": "impaired" if bad else "ok",
        }

    def get_console_output(self: Any) -> ActionResult:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        text = world.hypervisor.console(instance.id)
        output = Base64EncodedString.from_raw_string(text)
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    instances.Instance.instance_status = property(status)
    instances.Instance.system_status = property(status)
    General.get_console_output = get_console_output


def _patch_volumes(world: World) -> None:
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
