"""Whole projects whose workers are jobs of a Slurm cluster, reached over SSH."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.lab import git, project, prompt, refs, script, work
from tests.on_slurm.lab import SlurmLab

SECONDS = 60.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "slurm"


def test_a_planned_project_from_goal_to_integrated_branch(lab: SlurmLab) -> None:
    """Planner, tasks and integration run on the cluster; the branches come home."""
    repository = lab.repository()
    lab.start()
    graph = {
        "tasks": [
            {
                "task_id": name,
                "title": name,
                "prompt": work(name)["prompt"],
                "acceptance_criteria": ["it is there"],
                "depends_on": needs,
            }
            for name, needs in (("a", []), ("b", []), ("c", ["a", "b"]))
        ]
    }
    lab.apply(
        lab.swarm_of(replicas=3),
        project(
            planner={"swarm": "builders", "specification": script(f"plan: {json.dumps(graph)}")},
            integration={"verify": ["test -f a.txt -a -f b.txt -a -f c.txt"]},
        ),
    )
    lab.wait_phase("Project", "demo", "Completed", deadline=SECONDS)
    assert lab.project("demo")["progress"] == "3/3"
    there = refs(repository)
    for name in ("a", "b", "c"):
        done = lab.task(f"demo.{name}")
        assert there[f"refs/heads/codeswarm/demo/{name}"] == done["headCommit"]
        assert there[done["headRef"]] == done["headCommit"]
        assert done["filesChanged"] == [f"{name}.txt"]
    tree = git("-C", str(repository), "ls-tree", "--name-only", "codeswarm/demo/integration")
    assert tree.split() == ["README.md", "a.txt", "b.txt", "c.txt"]
    lab.delete("Project", "demo")
    lab.wait(lambda: lab.is_gone("Project", "demo"), "the project to go")
    lab.delete("Swarm", "builders")
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go", SECONDS)
    assert lab.live_jobs() == []
    assert lab.cluster.left() == []


def test_scaling_heals_and_shrinks_one_job_at_a_time(lab: SlurmLab) -> None:
    lab.start()
    lab.apply(lab.swarm_of(replicas=2))
    lab.wait_phase("Swarm", "builders", "Running")
    first = {row["index"]: row["job"] for row in lab.swarm_status("builders")}
    assert all(row["handle"] for row in lab.swarm_status("builders"))

    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=4))
    lab.wait(lambda: lab.swarm("builders").get("ready") == "4/4", "four workers")
    now = {row["index"]: row["job"] for row in lab.swarm_status("builders")}
    assert {index: now[index] for index in first} == first

    lab.cluster.slurm.cancel(lab.slurm_id("builders", 1))  # an administrator's scancel
    lab.wait(
        lambda: (
            lab.swarm("builders").get("ready") == "4/4"
            and {r["index"]: r["job"] for r in lab.swarm_status("builders")}[1] != now[1]
        ),
        "the cancelled worker to be replaced",
    )
    healed = {row["index"]: row["job"] for row in lab.swarm_status("builders")}
    assert [index for index in now if now[index] != healed[index]] == [1]

    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=1))
    lab.wait(lambda: len(lab.live_jobs()) == 1, "three jobs to go")
    assert lab.slurm_id("builders", 0)


def test_prompts_go_there_and_answers_come_back(lab: SlurmLab) -> None:
    lab.start()
    lab.apply(lab.swarm_of(replicas=1), prompt("one", script('say: "from a node"')))
    lab.wait_phase("Task", "one", "Succeeded")
    assert lab.task("one")["answer"] == "from a node"


def test_the_example_runs_as_its_readme_says(lab: SlurmLab) -> None:
    """With the place of this cluster instead of the lab's."""
    git("init", "-q", "-b", "main", str(lab.path / "repository"))
    git("-C", str(lab.path / "repository"), "commit", "-q", "--allow-empty", "-m", "Begin")
    preset, swarm = yaml.safe_load_all((EXAMPLE / "lab.yaml").read_text())
    preset["spec"]["provider"]["slurm"].update(lab.cluster.parameters())
    lab.start()
    lab.apply(preset, swarm, yaml.safe_load((EXAMPLE / "project.yaml").read_text()))
    lab.wait_phase("Project", "cluster-demo", "Completed", deadline=SECONDS)
    branch = lab.project("cluster-demo")["branch"]
    report = git("-C", str(lab.path / "repository"), "show", f"{branch}:report.txt")
    assert report.startswith("It ran on n")
