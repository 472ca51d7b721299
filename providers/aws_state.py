"""What the parts of one swarm's site on EC2 share: the swarm, the ways to it, intervals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from providers.aws_lookout import Lookout
from providers.aws_nodes import Nodes
from providers.aws_plan import PATIENCE, Patience
from providers.aws_values import Wish
from providers.aws_volume_host import VolumeHost
from providers.base import ProviderError, ProviderUnreachable, Sink, SwarmHandle

if TYPE_CHECKING:
    from providers.aws_api import Boto
    from providers.aws_preflight import Preflight
    from providers.ssh_target import Means


LEAST_LEFT_SECONDS = 2.0
"""Less is too little to begin anything.  A lease that is renewed in time always has more: it lasts
some seconds only, and each request asks once more just before it is sent."""


@dataclass(frozen=True, slots=True)
class Times:
    """Intervals and patience, seconds."""

    steady: float = 15.0
    """Between two looks at EC2 when nothing changes."""
    busy: float = 4.0
    """While something does."""
    volumes: float = 300.0
    """Between two looks at volumes when nothing changes."""
    wanted: float = 300.0
    """For how long the volume is kept at hand after somebody needed what is on it."""
    settle: float = 30.0
    """After the last request for instances, until a look that shows none is believed."""
    deaf: float = 90.0
    """A machine on which a worker cannot be killed for so long is ended itself."""
    booting: float = 180.0
    """Until a machine that refuses SSH counts as trouble."""
    early: float = 45.0
    """The same for one that answers, and lets nobody log in: cloud-init may be at it still."""
    doubt: float = 30.0
    """A machine that seems not to be ready any more is looked at again no sooner."""
    adopting: float = 20.0
    """How long whoever looks waits for a coordinator that runs and was not looked at yet."""
    expiry: float = 120.0
    """A worker that nobody asks for again is not wanted any more."""
    patience: Patience = PATIENCE


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sites of an account and region share."""

    ec2: Boto
    lookout: Lookout
    preflight: Preflight
    means: Callable[[], Means]
    home: str
    """Id of this home, for tags."""
    sink: Sink
    left: Callable[[], float]
    """Seconds for which this controller may still act."""
    log: Callable[[SwarmHandle, str, str], None]
    """Takes the set-up log of a machine: whose it is, its id, the text."""
    times: Times = Times()
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Making:
    """What is remembered of making and attaching the volume."""

    token: str = ""
    """Of a request whose answer was lost."""
    salt: str = ""
    devices: dict[str, int] = field(default_factory=dict)
    """By instance: how many device names were taken there already."""


@dataclass(slots=True)
class SiteState:
    """One swarm on EC2, as its parts see it."""

    swarm: SwarmHandle
    wish: Wish
    around: Surroundings
    nodes: Nodes
    host: VolumeHost
    trouble: dict[str, ProviderError] = field(default_factory=dict)
    """What keeps things from going on, by what was about to be done."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    making: Making = field(default_factory=Making)

    @classmethod
    def of(cls, swarm: SwarmHandle, around: Surroundings) -> SiteState:
        """The state of a site that has done nothing yet."""
        host = VolumeHost(around.sink, around.clock)
        return cls(swarm, Wish.of(swarm), around, Nodes(around.means), host)

    def now(self) -> float:
        """Monotonic, seconds."""
        return self.around.clock()

    def wake(self) -> None:
        """Have the next step taken at once."""
        self.woken.set()

    def may(self, seconds: float = LEAST_LEFT_SECONDS) -> None:
        """Raises: ProviderUnreachable, if we may not act for so long any more."""
        if self.around.left() < seconds:
            raise ProviderUnreachable(
                "LeaseTooShort", "another controller may act soon: nothing new is begun"
            )
