"""What the AWS provider speaks of: a swarm's wish, its EC2 instances and its EBS volume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from providers.base import SwarmHandle

PREFIX = "codeswarm.dev/"
HOME_TAG = f"{PREFIX}home"
SWARM_TAG = f"{PREFIX}swarm"
UID_TAG = f"{PREFIX}swarm-uid"
HOST_KEY_TAG = f"{PREFIX}host-key"
WISH_TAG = f"{PREFIX}wish"
IN_USE_TAG = f"{PREFIX}in-use"
KEPT_TAG = f"{PREFIX}kept"
READY_TAG = f"{PREFIX}ready"
FORMATTED_TAG = f"{PREFIX}formatted"
YES = "true"

LIVE = frozenset({"pending", "running"})
ENDED = frozenset({"terminated"})
"""States in which an instance will never run again; ``gone`` ones are not listed at all."""


@dataclass(frozen=True, slots=True)
class Api:
    """Which EC2 is asked."""

    region: str
    endpoint: str | None = None
    """Another endpoint of every service; None: AWS's own."""

    def __str__(self) -> str:
        return f"{self.region} at {self.endpoint}" if self.endpoint else self.region


@dataclass(frozen=True, slots=True)
class VolumeWish:
    """The shared volume, as the manifest asks for it."""

    size_gib: int = 100
    type: str = "gp3"
    iops: int | None = None
    throughput: int | None = None
    """MiB a second."""
    delete: bool = False
    """With the swarm."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A provider block (``spec.provider.aws``)."""

    api: Api
    ami: str
    instance_type: str
    root: str
    """``workspaceRoot``: where the volume is mounted on every instance; may begin with ``~/``."""
    user: str = "ubuntu"
    ssh_port: int = 22
    workers_per_instance: int = 1
    instance_count: int | None = None
    spot: bool = False
    zone: str | None = None
    subnet: str | None = None
    groups: tuple[str, ...] = ()
    key_name: str | None = None
    private_ip: bool = False
    device: str = "/dev/sdf"
    volume: VolumeWish = field(default_factory=VolumeWish)
    profile: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @classmethod
    def of(cls, swarm: SwarmHandle) -> Wish:
        """Read a handle's parameters, which the schema has seen to. Raises: KeyError."""
        given = swarm.parameters
        volume, bootstrap = given.get("volume") or {}, given.get("bootstrap") or {}
        return cls(
            api=Api(str(given["region"]), given.get("endpointUrl") or None),
            ami=str(given["amiId"]),
            instance_type=str(given["instanceType"]),
            root=str(given["workspaceRoot"]),
            user=str(given.get("sshUser") or "ubuntu"),
            ssh_port=int(given.get("sshPort") or 22),
            workers_per_instance=int(given.get("workersPerInstance") or 1),
            instance_count=given.get("instanceCount"),
            spot=bool(given.get("spot")),
            zone=given.get("availabilityZone"),
            subnet=given.get("subnetId"),
            groups=tuple(given.get("securityGroupIds") or ()),
            key_name=given.get("keyName"),
            private_ip=bool(given.get("usePrivateIp")),
            device=str(given.get("deviceName") or "/dev/sdf"),
            volume=VolumeWish(
                size_gib=int(volume.get("sizeGib", 100)),
                type=str(volume.get("type", "gp3")),
                iops=volume.get("iops"),
                throughput=volume.get("throughput"),
                delete=bool(volume.get("deleteOnTermination")),
            ),
            profile=given.get("iamInstanceProfile"),
            tags=tuple(sorted((given.get("tags") or {}).items())),
            packages=tuple(bootstrap.get("packages") or ()),
            commands=tuple(bootstrap.get("commands") or ()),
        )

    @property
    def digest(self) -> str:
        """What an instance is made of: those with another one are replaced (``WISH_TAG``)."""
        made_of = [
            self.ami, self.instance_type, self.spot, self.zone,
            self.subnet, self.groups, self.key_name, self.profile, self.packages, self.commands,
            self.root,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]

    def instances_for(self, workers: int) -> int:
        """How many instances so many workers need."""
        return -(-workers // self.workers_per_instance)


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance, as it was seen last."""

    id: str
    state: str
    """``pending``, ``running``, ``stopping``, ``stopped``, ``shutting-down``, ``terminated``."""
    type: str = ""
    zone: str = ""
    private_ip: str = ""
    public_ip: str = ""
    launched_at: float = 0.0
    """Seconds since the epoch."""
    ended_at: float | None = None
    """From the time in its state transition reason, where EC2 tells one."""
    spot: bool = False
    state_reason: str = ""
    """EC2's code: ``Server.SpotInstanceTermination``, ``Client.UserInitiatedShutdown``."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether it runs, or is about to."""
        return self.state in LIVE

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == "running"

    @property
    def uid(self) -> str:
        """Of the swarm that it belongs to."""
        return self.tags.get(UID_TAG, "")

    @property
    def host_key(self) -> str:
        """Its public SSH host key; empty: it was given none."""
        return self.tags.get(HOST_KEY_TAG, "")

    @property
    def wish(self) -> str:
        """``Wish.digest`` of what it was made from."""
        return self.tags.get(WISH_TAG, "")

    @property
    def was_ready(self) -> bool:
        """Whether it has been set up once (``READY_TAG``)."""
        return self.tags.get(READY_TAG) == YES

    def address(self, wish: Wish) -> str:
        """Where it is reached from here."""
        return self.private_ip if wish.private_ip else self.public_ip or self.private_ip


@dataclass(frozen=True, slots=True)
class Volume:
    """An EBS volume, as it was seen last."""

    id: str
    state: str
    """``creating``, ``available``, ``in-use``, ``deleting``, ``deleted``, ``error``."""
    zone: str = ""
    size_gib: int = 0
    created_at: float = 0.0
    """Seconds since the epoch."""
    attached_to: str = ""
    """Id of an instance; empty: to none."""
    attachment: str = ""
    """``attaching``, ``attached``, ``detaching``, ``busy``; empty: to none."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """Of the swarm that it belongs to."""
        return self.tags.get(UID_TAG, "")

    @property
    def in_use(self) -> bool:
        """Whether workers' folders may be on it (``IN_USE_TAG``)."""
        return self.tags.get(IN_USE_TAG) == YES

    @property
    def formatted(self) -> bool:
        """Whether it has had a file system (``FORMATTED_TAG``): it is never formatted again."""
        return self.in_use or self.tags.get(FORMATTED_TAG) == YES

    @property
    def kept(self) -> bool:
        """Whether it was kept on purpose when its swarm was deleted."""
        return self.tags.get(KEPT_TAG) == YES


def tags_of(home: str, swarm: SwarmHandle, wish: Wish) -> dict[str, str]:
    """The tags of everything that belongs to a swarm.

    Args:
        home: id of this home.
        swarm: whose.
        wish: with the user's own tags, which ours go before.
    """
    return {
        **dict(wish.tags),
        "Name": dict(wish.tags).get("Name", f"codeswarm-{swarm.namespace}-{swarm.name}")[:255],
        HOME_TAG: home,
        SWARM_TAG: f"{swarm.namespace}/{swarm.name}"[:255],
        UID_TAG: swarm.uid,
    }


@dataclass(frozen=True, slots=True)
class Inventory:
    """All instances and volumes that were asked for, as one look found them."""

    instances: Collection[Instance] = ()
    volumes: Collection[Volume] = ()
    at: float = 0.0
    """When the look was begun; monotonic, seconds."""
