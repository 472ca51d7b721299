"""A swarm without workers: its machines end, and its volume can still be read at the end."""

from __future__ import annotations

import tarfile

import pytest

from tests.lab import prompt, script
from tests.on_aws.lab import AwsLab


@pytest.mark.soak
def test_an_idle_swarms_archive_is_read_by_a_machine_of_its_own(lab: AwsLab) -> None:
    lab.start()
    lab.apply(
        lab.swarm_of(replicas=1, termination={"gracePeriodSeconds": 1, "archive": True}),
        prompt("one", script('say: "kept"')),
    )
    lab.wait_phase("Task", "one", "Succeeded")
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=0))
    lab.wait(lambda: not lab.running(), "the last machine to end", 90)
    uid = lab.uid()
    lab.delete("Swarm", "builders")
    lab.gone(uid)
    (archive,) = lab.home.archives.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        assert any(name.endswith("ARCHIVE.json") for name in packed.getnames())
