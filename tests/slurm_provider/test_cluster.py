"""The cluster that the tests run is a real one: jobs run, nodes fail, slurmctld forgets."""

from __future__ import annotations

from tests.slurm import Slurm, wait

JOB = "#!/bin/sh\nexec sleep 300\n"


def submit(cluster: Slurm, name: str, *options: str) -> str:
    """One job that sleeps; its id."""
    argv = ("sbatch", "--parsable", f"--job-name={name}", "--no-requeue", "--array=3", *options)
    return cluster.call(*argv, input=JOB).stdout.strip()


def reach(cluster: Slurm, name: str, state: str) -> None:
    """Wait for a job's state."""
    wait(lambda: bool(cluster.ids(name, state)), f"{name} to be {state}")


def test_a_node_that_loses_power_takes_its_job_with_it(slurm: Slurm) -> None:
    node, other = slurm.names[1:3]
    submit(slurm, "powerless", f"--nodelist={node}")
    reach(slurm, "powerless", "RUNNING")
    wait(lambda: bool(slurm.processes_of(node)), "the job's processes")
    wait(lambda: not slurm.processes_of(other), "what earlier jobs left on another node to end")
    slurm.kill_node(node)
    assert not slurm.processes_of(node)
    slurm.fail_node(node)  # what slurmctld finds out by itself some 15 s later
    reach(slurm, "powerless", "NODE_FAIL")


def test_slurmctld_killed_after_a_submission_forgets_it(slurm: Slurm) -> None:
    """Unless it saved its state in that very moment, which it does every few seconds."""
    for attempt in range(4):
        name = f"forgotten-{attempt}"
        submit(slurm, name, "--hold")
        slurm.kill_ctld()
        slurm.start_ctld()
        if slurm.ids(name) == []:
            return
    raise AssertionError("slurmctld forgot none of four jobs")


def test_an_orderly_restart_forgets_nothing(slurm: Slurm) -> None:
    job = submit(slurm, "kept")
    reach(slurm, "kept", "RUNNING")
    slurm.restart_ctld()
    assert slurm.ids("kept", "RUNNING") == [job]
