"""The dead-man's switch: what is over its limit is named, and a stuck loop shows."""

from __future__ import annotations

import asyncio
import time

import pytest

from controller.http import health as module
from controller.http.health import Health, Heartbeat, Limits
from tests.http.harness import run, site


def ready():
    return True, ""


def test_all_well_names_nothing():
    report = Health(ready, contact=lambda: 299.0, oldest=lambda: 119.0).look()
    assert report.stale == ()
    assert (report.contact, report.oldest, report.lag) == (299.0, 119.0, 0.0)


def test_a_home_without_watches_has_no_contact_to_lose():
    assert Health(ready).look().contact is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"contact": lambda: 301.0}, "no word from the API server for 301 s (300)"),
        ({"oldest": lambda: 121.0}, "the oldest key has waited 121 s (120)"),
    ],
)
def test_what_is_over_its_limit_is_named(given, words):
    assert Health(ready, **given).look().stale == (words,)


def test_several_things_may_be_stale():
    limits = Limits(contact=1.0, lag=1.0, oldest=1.0)
    report = Health(ready, contact=lambda: 2.0, oldest=lambda: 2.0, limits=limits).look()
    assert len(report.stale) == 2


def test_a_blocked_loop_is_late_and_recovers(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)

    async def scenario():
        beat = Heartbeat()
        assert beat.lag() == 0.0
        beat.start()
        await asyncio.sleep(0.06)
        time.sleep(0.5)  # noqa: ASYNC251 (the fault)
        assert beat.lag() > 0.3  # asked before the loop had a turn
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert beat.lag() > 0.3  # and after it
        deadline = time.monotonic() + 10
        while beat.lag() > 0.1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        beat.stop()
        assert beat.lag() == 0.0

    run(scenario())


def test_the_probes_say_it_by_status_and_body(tmp_path):
    async def scenario():
        async with site(tmp_path) as made:
            good = await made.ask("/healthz")
            assert good.status == 200 and good.json["status"] == "ok"
            assert "contactSeconds" not in good.json
            made.health.contact = lambda: 1000.0
            bad = await made.ask("/healthz")
            assert bad.status == 503 and bad.json["status"] == "stale"
            assert bad.json["stale"] == ["no word from the API server for 1000 s (300)"]
            assert (await made.ask("/readyz")).status == 200
            made.waits = "waits for the lease that other holds"
            waiting = await made.ask("/readyz")
            assert waiting.status == 503
            assert waiting.json == {"status": "waiting", "reason": made.waits}
            assert (await made.ask("/readyz", method="HEAD")).status == 503

    run(scenario())
