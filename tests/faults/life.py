"""A small project's whole life, the same in both homes, for tests in which somebody dies."""

from __future__ import annotations

import tarfile

from tests.faults.support import (
    PRICED,
    USE,
    Mortal,
    check_branches,
    check_nothing_left,
    check_turns,
    check_usage,
    check_workers,
)
from tests.lab import project, prompt, refs, script, swarm, work

TASKS = ("a", "b", "c")


def life(lab: Mortal) -> None:
    """A small project from its manifests to nothing left, whoever dies on the way."""
    repository = lab.repository()
    tasks = [
        work("a", USE),
        work("b", USE, '{run: "exit 1", attempt: 1}'),
        work("c", USE, depends_on=["a", "b"]),
    ]
    verify = ["test -f a.txt -a -f b.txt -a -f c.txt"]
    lab.apply(
        swarm(
            agent=PRICED,
            provider=dict(lab.provider),
            termination={"archive": True, "gracePeriodSeconds": 20},
        ),
        project(
            repository={"url": str(repository), "baseBranch": "main"},
            tasks=tasks,
            integration={"verify": verify},
        ),
        prompt("p", script(USE)),
    )
    lab.converge(
        lambda: (
            lab.phase_of("Project", "demo") == "Completed"
            and lab.phase_of("Task", "p") == "Succeeded"
        ),
        "the project and the prompt",
    )
    classes = {
        name: [attempt.get("class") for attempt in lab.attempts(name)]
        for name in ("demo.a", "demo.b", "demo.c", "demo.integration", "p")
    }
    assert classes == {
        "demo.a": [None], "demo.b": ["Task", None], "demo.c": [None],
        "demo.integration": [None], "p": [None],
    }  # fmt: skip
    assert all(turn.complete for turn in check_turns(lab).values())
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", TASKS)
    jobs = set(lab.jobs("builders"))
    lab.delete("Swarm", "builders")
    lab.converge(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    check_nothing_left(lab)
    check_turns(lab)
    check_usage(lab, "demo")
    (archive,) = lab.home.archives.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert all(any(f"{job}/mailbox/outbox" in name for name in names) for job in jobs)
    lab.delete("Project", "demo")
    lab.converge(lambda: lab.is_gone("Project", "demo"), "the project to go")
    lab.converge(
        lambda: all(task["metadata"]["name"] == "p" for task in lab.list("Task")),
        "the project's tasks to go with it",
    )
    assert not [ref for ref in refs(repository) if ref.startswith("refs/codeswarm/")]
    assert {f"refs/heads/codeswarm/demo/{name}" for name in TASKS} < set(refs(repository))
