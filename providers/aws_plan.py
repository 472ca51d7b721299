"""What a swarm's machines should become next: one pure decision per look.

The volume is the lock: the instance that it is attached to is the coordinator, and EC2 attaches
it to one only.  Nothing is launched or ended on a guess; where it is not known which workers are
alive, nothing that may carry one is ended.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from providers.aws_values import IN_USE_TAG, UID_TAG, Instance, Volume, Wish
from providers.base import ProviderError

HELD = frozenset({"attaching", "attached", "busy"})
"""Attachments by which a volume cannot go to another instance."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is known of a swarm's workers."""

    waiting: int = 0
    """Asked for, and not begun."""
    alive: Mapping[str, int] = field(default_factory=dict)
    """Workers by instance."""
    known: bool = True
    """Whether ``alive`` is all: the volume could be read, or nothing was ever begun."""
    volume_needed: bool = False
    """What is on the volume must be read, whether workers are wanted or not."""

    @property
    def workers(self) -> int:
        """Alive or to come."""
        return self.waiting + sum(self.alive.values())


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds for which things have been as they are."""

    idle: Mapping[str, float] = field(default_factory=dict)
    """By instance: without a worker."""
    unready: Mapping[str, float] = field(default_factory=dict)
    """By instance: running, and not ready for workers, as far as this process knows."""
    unwanted: float = 0.0
    """Since the last worker was wanted."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may be as they are, seconds."""

    linger: float = 60.0
    """A machine without a worker, where there are more than needed."""
    idle: float = 300.0
    """The last one, when no worker is wanted."""
    set_up: float = 900.0
    """A machine that cannot be made ready: then it is replaced."""
    attaching: float = 180.0
    """The volume that does not come to be attached to a machine: then that is replaced."""
    ending: float = 300.0
    """A machine that does not come to its end: then the volume is taken from it by force."""
    silent: float = 300.0
    """A coordinator that lets nobody log in, while others answer: then it is replaced."""


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next."""

    launch: int = 0
    zone: str | None = None
    """Where: the volume's zone; None: as the wish says."""
    terminate: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    """Those of ``terminate`` that something was wrong with."""
    create_volume: str | None = None
    """In this zone."""
    delete_volumes: tuple[str, ...] = ()
    """Made twice by way of a lost answer."""
    attach: str | None = None
    """The volume goes to this instance."""
    let_go: bool = False
    """Nothing on the volume is in use any more: say so there before ``terminate``."""
    coordinator: Instance | None = None
    short: int = 0
    """Workers for which the manifest's ``instanceCount`` leaves no room."""


def chosen(volumes: Collection[Volume]) -> Volume | None:
    """The swarm's volume, of those with its tag: that in use, the attached one, the oldest.

    Raises: ProviderError (``VolumeAmbiguous``: two are in use).
    """
    there = [v for v in volumes if v.state not in ("deleting", "deleted", "error")]
    there.sort(key=lambda v: (not v.in_use, v.attachment not in HELD, v.created_at, v.id))
    used = [v.id for v in there if v.in_use]
    if len(used) > 1:
        raise ProviderError(
            "VolumeAmbiguous",
            f"volumes {', '.join(used)} all say that they are in use by this swarm: take the tags "
            f"{UID_TAG} and {IN_USE_TAG} from those that are not its own",
        )
    return there[0] if there else None


def coordinator_of(instances: Collection[Instance], volume: Volume | None) -> Instance | None:
    """The running instance that has the volume."""
    if volume is None or volume.attachment not in ("attached", "busy"):
        return None
    return next((i for i in instances if i.id == volume.attached_to and i.running), None)


def decide(
    wish: Wish,
    instances: Collection[Instance],
    volumes: Collection[Volume],
    demand: Demand,
    *,
    ages: Ages,
    patience: Patience = PATIENCE,
    deaf: Collection[str] = (),
) -> Plan:
    """The next step of a swarm's machines.

    Args:
        wish: what they shall be.
        instances: all that EC2 shows, those that ended too.
        volumes: all with the swarm's tag.
        demand: what is known of the workers.
        ages: for how long things have been as they are.
        patience: for how long they may.
        deaf: those that are given up, whatever runs there.

    Raises: ProviderError (``VolumeAmbiguous``).
    """
    volume = chosen(volumes)
    coordinator = coordinator_of(instances, volume)
    broken = [i.id for i in instances if i.state in ("stopped", "stopping")]
    never = [
        i.id for i in instances
        if i.running and (i.id in deaf or _given_up(i, ages, demand, patience))
    ]  # fmt: skip
    gone = {*broken, *never}
    live = sorted(
        (i for i in instances if i.live and i.id not in gone), key=lambda i: (i.launched_at, i.id)
    )
    surplus, let_go = _surplus(wish, live, coordinator, demand, ages=ages, patience=patience)
    staying = [i for i in live if i.id not in surplus]
    launch, short = _missing(wish, staying, volume, demand)
    attach, create = _volume_step(wish, staying, volume, instances, demand)
    extra = [v.id for v in volumes if volume and v.id != volume.id and _is_blank(v)]
    return Plan(
        launch=launch,
        zone=volume.zone if volume is not None else staying[0].zone or None if staying else None,
        terminate=(*broken, *never, *surplus),
        replace=(*broken, *never),
        create_volume=create,
        delete_volumes=tuple(extra),
        attach=attach,
        let_go=let_go,
        coordinator=coordinator if coordinator and coordinator.id not in gone else None,
        short=short,
    )


def _given_up(instance: Instance, ages: Ages, demand: Demand, patience: Patience) -> bool:
    """Whether one that cannot be made ready is replaced; one that carries a worker never is."""
    late = ages.unready.get(instance.id, 0.0) > patience.set_up
    bare = not instance.was_ready or (demand.known and not demand.alive.get(instance.id))
    return late and bare


def _is_blank(volume: Volume) -> bool:
    return volume.state == "available" and not volume.formatted and not volume.kept


def _target(wish: Wish, demand: Demand) -> int:
    """How many instances of the present wish there should be."""
    needed = wish.instances_for(demand.workers)
    if wish.instance_count is not None and demand.workers:
        return wish.instance_count
    return needed


def _surplus(
    wish: Wish,
    live: Sequence[Instance],
    coordinator: Instance | None,
    demand: Demand,
    *,
    ages: Ages,
    patience: Patience,
) -> tuple[list[str], bool]:
    """Which live instances may end, and whether with them the last use of the volume does."""
    if not demand.known:
        return [], False
    leader = coordinator or next((i for i in live if i.wish == wish.digest), None)
    empty = [
        i for i in live if not demand.alive.get(i.id) and (leader is None or i.id != leader.id)
    ]
    outdated = [i for i in empty if i.wish != wish.digest]
    current = [i for i in live if i.wish == wish.digest]
    spare = max(0, len(current) - max(_target(wish, demand), 1))
    idle = [
        i for i in reversed(empty)
        if i.wish == wish.digest and ages.idle.get(i.id, 0.0) >= patience.linger
    ]  # fmt: skip
    ending = [*outdated, *idle[:spare]]
    if leader is None or any(demand.alive.values()) or demand.volume_needed:
        return [i.id for i in ending], False
    unwanted = not demand.waiting and ages.unwanted >= patience.idle
    if unwanted:
        return [i.id for i in live], True
    if leader.wish != wish.digest:
        return [i.id for i in (*ending, leader)], False
    return [i.id for i in ending], False


def _missing(
    wish: Wish, staying: Sequence[Instance], volume: Volume | None, demand: Demand
) -> tuple[int, int]:
    """How many instances to launch, and how many workers find no room in ``instanceCount``."""
    current = [i for i in staying if i.wish == wish.digest]
    seats = sum(max(0, wish.workers_per_instance - demand.alive.get(i.id, 0)) for i in current)
    unseated = max(0, demand.waiting - seats)
    launch = wish.instances_for(unseated)
    short = 0
    if wish.instance_count is not None:
        room = max(0, wish.instance_count - len(current))
        short = max(0, unseated - room * wish.workers_per_instance)
        launch = room if demand.workers else 0
    reader = any(volume is None or i.zone == volume.zone for i in staying)
    needed = demand.volume_needed or demand.waiting > 0
    if not reader and not launch and needed and volume is not None:
        launch = 1
    return launch, short


def _volume_step(
    wish: Wish,
    staying: Sequence[Instance],
    volume: Volume | None,
    instances: Collection[Instance],
    demand: Demand,
) -> tuple[str | None, str | None]:
    """Which instance the volume goes to, and the zone in which one is to be made."""
    wanted = demand.workers > 0 or demand.volume_needed
    if volume is None:
        zone = next((i.zone for i in staying if i.zone), None)
        return None, zone if demand.workers else None
    if volume.state != "available" or not wanted:
        return None, None
    candidates = [i for i in staying if i.running and i.zone == volume.zone]
    candidates.sort(key=lambda i: (i.wish != wish.digest, i.launched_at, i.id))
    return (candidates[0].id if candidates else None), None


def places(
    wish: Wish,
    ready: Sequence[Instance],
    coordinator: Instance,
    alive: Mapping[str, int],
    jobs: Sequence[str],
) -> dict[str, list[str]]:
    """Which waiting workers begin where: the coordinator first, then the fullest machine.

    Args:
        wish: of the swarm; machines made from another one take nobody.
        ready: machines that are set up.
        coordinator: one of them, or none of them yet.
        alive: workers by instance.
        jobs: in the order of their indices.

    Returns: jobs by instance; those without a seat are left out.
    """
    hosts = [i for i in ready if i.wish == wish.digest and i.running]
    hosts.sort(key=lambda i: (i.id != coordinator.id, -alive.get(i.id, 0), i.launched_at, i.id))
    waiting, given = list(jobs), dict[str, list[str]]()
    for host in hosts:
        seats = max(0, wish.workers_per_instance - alive.get(host.id, 0))
        if waiting and seats:
            given[host.id], waiting = waiting[:seats], waiting[seats:]
    return given


def pause_after(failures: int) -> float:
    """Seconds until what EC2 refused is asked for again: 5, 10, 20 ... 300."""
    return min(300.0, 5.0 * math.pow(2.0, min(max(failures, 1) - 1, 10)))
