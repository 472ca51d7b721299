"""Whole projects whose workers are on EC2, from their machines' launch to their end."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.lab import git, project, prompt, refs, script, work
from tests.on_aws.lab import AwsLab

SECONDS = 90.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "aws"


def test_a_planned_project_from_goal_to_nothing_left(lab: AwsLab) -> None:
    """Planner, tasks and integration run on machines; the branches come home; the machines go."""
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
    there = refs(repository)
    for name in ("a", "b", "c"):
        done = lab.task(f"demo.{name}")
        assert there[f"refs/heads/codeswarm/demo/{name}"] == done["headCommit"]
        assert done["filesChanged"] == [f"{name}.txt"]
    tree = git("-C", str(repository), "ls-tree", "--name-only", "codeswarm/demo/integration")
    assert tree.split() == ["README.md", "a.txt", "b.txt", "c.txt"]
    uid = lab.uid()
    assert len(lab.running()) == 2
    lab.delete("Project", "demo")
    lab.wait(lambda: lab.is_gone("Project", "demo"), "the project to go")
    lab.delete("Swarm", "builders")
    lab.gone(uid)


def test_machines_come_and_go_with_the_workers(lab: AwsLab) -> None:
    lab.start()
    lab.apply(lab.swarm_of(replicas=2))
    lab.ready(2)
    (first,) = lab.running()
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=5))
    lab.ready(5)
    assert len(lab.running()) == 3
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=1))
    lab.ready(1)
    lab.wait(lambda: lab.running() == [first], "the other machines to end")


def test_prompts_go_there_and_answers_come_back(lab: AwsLab) -> None:
    lab.start()
    lab.apply(lab.swarm_of(replicas=1), prompt("one", script('say: "from a machine"')))
    lab.wait_phase("Task", "one", "Succeeded")
    assert lab.task("one")["answer"] == "from a machine"


def test_the_example_runs_as_its_readme_says(lab: AwsLab) -> None:
    """With the test cloud's place instead of the user's."""
    repository = lab.path / "repository"
    git("init", "-q", "-b", "main", str(repository))
    git("-C", str(repository), "commit", "-q", "--allow-empty", "-m", "Begin")
    preset, swarm = yaml.safe_load_all((EXAMPLE / "cloud.yaml").read_text())
    block = preset["spec"]["provider"]["aws"]
    assert block.keys() >= lab.block.keys() - {"endpointUrl", "sshPort"}
    block.update(lab.cloud.parameters(volume=block["volume"]))
    lab.start()
    lab.apply(preset, swarm, yaml.safe_load((EXAMPLE / "project.yaml").read_text()))
    lab.wait_phase("Project", "cloud-demo", "Completed", deadline=SECONDS)
    branch = lab.project("cloud-demo")["branch"]
    report = git("-C", str(repository), "show", f"{branch}:report.txt")
    assert report.startswith("It ran on ip-")
    uid = lab.uid("cloud")
    assert len(lab.running("cloud")) == 2
    for kind, name in (("Project", "cloud-demo"), ("Swarm", "cloud")):
        lab.delete(kind, name)
    lab.gone(uid, "cloud")
