"""A swarm's credential in its passes: which one it is, and what a pause means for its workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.domain.credential import credential_of, shown
from controller.domain.fleet import LOST, Entry
from controller.reconcile.context import Context
from controller.reconcile.health import first_turn
from controller.reconcile.pauses import REFUSALS
from controller.reconcile.swarm_spec import Launchable
from controller.store.base import Key
from providers.base import JobState, JobStatus


class SwarmCredential:
    """Keeps ``SwarmInfo.credential``, and holds and renews workers as pauses ask for it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def look(
        self,
        key: Key,
        want: Launchable,
        entries: Iterable[Entry],
        jobs: Mapping[str, JobStatus],
        *,
        accepted: bool,
    ) -> None:
        """Take over which credential a swarm has, and what first turns of workers met with it."""
        info = self._ctx.world.swarms.get(key)
        if info is None or not accepted:
            return
        place = ("loginHost", "region")
        where = [want.provider, *(str(want.parameters.get(name, "")) for name in place)]
        info.credential = credential_of(
            want.worker_config["runtime"],
            want.worker_config["agent"],
            want.env,
            place="/".join(where),
            own=info.uid,
        )
        self._ctx.world.pauses.meet(info.credential, self._ctx.world.swarms.values())
        for entry in entries:
            job = jobs.get(entry.job)
            ended = job is not None and job.state is JobState.ENDED
            if ended and entry.phase != LOST and entry.spec_hash == want.hash:
                self._first_turn(key, info.credential, entry)

    def _first_turn(self, key: Key, credential: str, entry: Entry) -> None:
        """A worker whose system prompt was refused has ended without any task's attempt."""
        outcome = first_turn(self._ctx, entry.job)
        if outcome is None or outcome.failure not in REFUSALS or entry.ready_at is not None:
            return
        self._ctx.world.pauses.refused(
            credential,
            outcome.failure,
            began=entry.launched_at,
            now=self._ctx.clock.now(),
            retry_after=outcome.retry_after,
            message=outcome.message,
            origin=key.namespace,
        )

    def launches(
        self, key: Key, want: Launchable, now: float, *, asked: bool
    ) -> tuple[float | None, float | None]:
        """Until when no worker is started, and which are replaced (``plan_fleet``).

        A worker begins with a turn where there is a system prompt, and is not started for it
        while it would be refused.  After a refused credential workers are started anew: a login
        that was renewed is read at their start.  With ``asked`` a person wants it to be over.
        """
        info = self._ctx.world.swarms.get(key)
        if info is None or not info.credential:
            return None, None
        pause = self._ctx.world.pauses.of(info.credential)
        if pause is None:
            told = info.quota.get("credential", shown(info.credential))
            # What was refused is another credential by now: of an environment, or of a spec.
            return None, now if told != shown(info.credential) else None
        over = now if asked else pause.until
        renew = over if pause.renews and now >= over else None
        return (over if want.begins_with_a_turn else None), renew

    def lift(self, key: Key) -> None:
        """A person says that the credential is served again."""
        info = self._ctx.world.swarms.get(key)
        if info is not None and self._ctx.world.pauses.lift(info.credential):
            for swarm in self._ctx.world.swarms.values():
                if swarm.credential == info.credential:
                    self._ctx.queue.add(swarm.key)

    def opens(self, key: Key, now: float) -> list[float]:
        """When a pause of this swarm's credential asks for a look."""
        info = self._ctx.world.swarms.get(key)
        pause = self._ctx.world.pauses.held(info.credential, now) if info else None
        return [pause.until, pause.opens] if pause else []
