"""What the test cloud is like, and what its EC2 needs of a hypervisor."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol


@dataclass
class Knobs:
    """How long things take, in seconds, and how things are."""

    pending_seconds: float = 0.05
    """Until a new instance runs."""
    boot_seconds: float = 0.05
    """From there until its sshd listens."""
    ending_seconds: float = 0.05
    """In which an instance is ``shutting-down`` or ``stopping``, at least."""
    attach_seconds: float = 0.02
    """In which a volume is ``attaching``."""
    hide_seconds: float = 0.0
    """For which new instances and volumes cannot be seen yet."""
    xen: bool = False
    """Volumes appear under the name that was asked for, not as NVMe devices."""
    hide_tags_seconds: float = 0.0
    """For which a tag that was set later than at creation still has its old value, or none."""
    honour_tokens: bool = True
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

    def console(self, instance_id: str) -> str:
        """What an instance printed."""

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

    def console(self, instance_id: str) -> str:
        return ""

    def fallen(self) -> list[str]:
        return []
