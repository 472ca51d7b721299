"""The volume's attachment, where it does not move on by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from providers.aws_plan import HELD
from providers.aws_state import SiteState
from providers.aws_values import Instance, Volume
from providers.base import ProviderError

_LOG = logging.getLogger(__name__)


class Stuck:
    """Watches the attachment of one swarm's volume.

    Args:
        state: of its site.
    """

    def __init__(self, state: SiteState) -> None:
        self._state = state
        self._seen: tuple[str, str, str] = ("", "", "")
        self._since = 0.0

    async def look(self, volume: Volume | None, instances: Sequence[Instance]) -> list[str]:
        """Instances to be given up, since the volume does not come to be attached to them.

        From one that EC2 does not come to end the volume is taken by force: nothing runs there.

        Raises: ProviderError, ProviderUnreachable.
        """
        state, patience = self._state, self._state.around.times.patience
        state.trouble.pop("attachment", None)
        if volume is None or not volume.attached_to:
            self._seen = ("", "", "")
            return []
        holder = next((i for i in instances if i.id == volume.attached_to), None)
        seen = volume.attached_to, volume.attachment, holder.state if holder else ""
        if seen != self._seen:
            self._seen, self._since = seen, state.now()
        lasts = state.now() - self._since
        if holder is None:
            if volume.attachment in HELD:
                state.trouble["attachment"] = ProviderError(
                    "VolumeInUse",
                    f"{volume.id} is attached to {volume.attached_to}, which is no instance of "
                    "this swarm: detach it there",
                )
            return []
        if holder.running and volume.attachment == "attaching" and lasts >= patience.attaching:
            text = "%s does not come to be attached to %s of swarm %s: the instance is given up"
            _LOG.warning(text, volume.id, holder.id, state.swarm.name)
            return [holder.id]
        if holder.state == "shutting-down" and lasts >= patience.ending:
            text = "%s of swarm %s does not come to its end: %s is taken from it by force"
            _LOG.warning(text, holder.id, state.swarm.name, volume.id)
            self._since = state.now()
            state.may()
            await state.around.ec2.detach(volume.id, force=True)
            state.around.lookout.doubt()
        return []
