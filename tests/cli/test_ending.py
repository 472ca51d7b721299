"""What a deletion that is waited for says: each thing once, of swarms that are going alone."""

from __future__ import annotations

from typing import Any

from cli.ending import Told
from tests.cli.samples import condition, swarm


def going(reason: str, message: str = "", **status: Any) -> dict[str, Any]:
    """A swarm that is being deleted."""
    obj = swarm()
    obj["metadata"] |= {"uid": "1a2b3c4d", "deletionTimestamp": "2026-01-02T03:04:05Z"}
    ready = {**condition("Ready", "False", reason), "message": message}
    return {**obj, "status": {"conditions": [ready], **status}}


def test_what_it_waits_for_is_said_once_and_when_it_changes() -> None:
    said: list[str] = []
    told = Told(said.append)
    told.tell(going("Terminating", "draining"))
    for message in ("waiting for i-1, i-2", "waiting for i-1, i-2", "waiting for i-1"):
        told.tell(going("InstancesEnding", message, archivePath="/home/ada/builders.tar.gz"))
    assert said == [
        "swarm/builders archive: /home/ada/builders.tar.gz",
        "swarm/builders InstancesEnding: waiting for i-1, i-2",
        "swarm/builders InstancesEnding: waiting for i-1",
    ]


def test_nothing_is_said_of_what_stays() -> None:
    said: list[str] = []
    stays = going("InstancesEnding", "x", archivePath="x")
    del stays["metadata"]["deletionTimestamp"]
    Told(said.append).tell(stays)
    assert said == []


def test_a_volume_that_stays_is_said_for_it_costs() -> None:
    for volume, lines in (({}, 2), ({"deleteOnTermination": True}, 1)):
        said: list[str] = []
        told, provider = Told(said.append), {"aws": {"volume": volume}}
        told.tell(going("Progressing", "0 of 3", effective={"provider": provider}))
        for message in ("x", "x"):
            told.tell(going("InstancesEnding", message, effective={"provider": provider}))
        assert len(said) == lines
        assert any("its volume stays" in line for line in said) == (lines == 2)
