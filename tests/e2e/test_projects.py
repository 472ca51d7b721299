"""Projects from manifest to integrated branches."""

from __future__ import annotations

from pathlib import Path

from controller.store.base import Key
from tests.lab import Lab, git, project, prompt, refs, script, swarm, work


def test_a_chain_and_its_integration(lab: Lab) -> None:
    repository = lab.repository()
    lab.start()
    tasks = [work("a"), work("b"), work("c", depends_on=["a", "b"])]
    verify = ["test -f a.txt -a -f b.txt -a -f c.txt"]
    lab.apply(swarm(), project(tasks=tasks, integration={"verify": verify}))
    lab.wait_phase("Project", "demo", "Completed")
    status = lab.project("demo")
    assert status["progress"] == "3/3"
    assert [m["state"] for m in status["integration"]["merges"]] == ["merged", "merged", "merged"]
    tree = git("-C", str(repository), "ls-tree", "--name-only", status["branch"]).split()
    assert tree == ["README.md", "a.txt", "b.txt", "c.txt"]
    done = lab.task("demo.c")
    assert {d["task"] for d in done["attempts"][0]["dependencies"]} == {"a", "b"}
    assert refs(repository)["refs/heads/codeswarm/demo/c"] == done["headCommit"]


def test_the_task_fails_until_its_retries_are_used_up(lab: Lab) -> None:
    lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a", 'run: "exit 3"'), work("b")]))
    lab.wait_phase("Project", "demo", "Failed")
    status = lab.task("demo.a")
    assert status["reason"] == "RetriesExhausted"
    assert [a["class"] for a in status["attempts"]] == ["Task", "Task"]
    assert lab.task("demo.b")["phase"] == "Succeeded"
    assert lab.condition("Project", "demo", "Stalled")["status"] == "True"


def test_a_retry_goes_on_where_the_first_attempt_failed(lab: Lab) -> None:
    lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a", '{run: "exit 1", attempt: 1}')]))
    lab.wait_phase("Project", "demo", "Completed")
    assert [a["state"] for a in lab.task("demo.a")["attempts"]] == ["Failed", "Succeeded"]


def test_blocked_work_waits_for_a_person(lab: Lab) -> None:
    lab.repository()
    lab.start()
    tasks = [work("a", '{result: {status: blocked, notes: "needs a key"}, attempt: 1}')]
    lab.apply(swarm(replicas=1), project(tasks=tasks))
    lab.wait_phase("Project", "demo", "Attention")
    status = lab.task("demo.a")
    assert (status["phase"], status["reason"], len(status["attempts"])) == ("Failed", "Blocked", 1)
    assert lab.condition("Project", "demo", "NeedsAttention")["status"] == "True"
    lab.patch("Task", "demo.a", lambda o: o["metadata"]["annotations"].update(
        {"codeswarm.dev/retry": "token-1"}))  # fmt: skip
    lab.wait_phase("Project", "demo", "Completed")
    assert lab.task("demo.a")["observedRetry"] == "token-1"


def test_an_edited_task_and_its_dependents_run_again(lab: Lab) -> None:
    repository = lab.repository()
    lab.start()
    tasks = [work("a"), work("b", depends_on=["a"]), work("c")]
    lab.apply(swarm(), project(tasks=tasks))
    lab.wait_phase("Project", "demo", "Completed")
    tasks[0] = work("a", 'write: {path: more.txt, content: "more"}')
    lab.apply(project(tasks=tasks))
    lab.wait(lambda: len(lab.task("demo.b").get("attempts", ())) == 2, "b to run again")
    lab.wait(lambda: lab.project("demo")["phase"] != "Completed", "the project to notice")
    lab.wait_phase("Project", "demo", "Completed")
    assert len(lab.task("demo.a")["attempts"]) == 2
    assert len(lab.task("demo.c")["attempts"]) == 1
    tree = git("-C", str(repository), "ls-tree", "--name-only", "codeswarm/demo/integration")
    assert "more.txt" in tree.split()


def test_a_removed_task_is_cancelled_and_its_branch_stays(lab: Lab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a"), work("b")]))
    lab.wait_phase("Project", "demo", "Completed")
    lab.apply(project(tasks=[work("a"), work("slow", "sleep: 30")]))
    lab.wait(lambda: lab.task("demo.slow").get("phase") == "Running", "slow to run")
    lab.apply(project(tasks=[work("a")]))
    lab.wait_phase("Task", "demo.slow", "Cancelled")
    lab.wait_phase("Project", "demo", "Completed")
    assert lab.project("demo")["progress"] == "1/1"
    assert "refs/heads/codeswarm/demo/b" in refs(repository)


def test_owned_paths_and_max_parallel_hold_tasks_back(lab: Lab) -> None:
    lab.repository()
    lab.start()
    tasks = [
        work("a", "sleep: 0.4", ownedPaths=["src/"]),
        work("b", "sleep: 0.4", ownedPaths=["src/x.py"]),
        work("c", "sleep: 0.4"),
    ]
    lab.apply(swarm(replicas=3), project(tasks=tasks))
    lab.wait_phase("Project", "demo", "Completed")
    spans = {n: lab.task(f"demo.{n}")["attempts"][0] for n in "abc"}
    assert spans["b"]["assignedAt"] > spans["a"]["finishedAt"]
    assert spans["c"]["assignedAt"] < spans["a"]["finishedAt"]


def test_a_conflict_at_integration_is_told_and_then_resolved(lab: Lab) -> None:
    lab.repository(files={"x.txt": "base\n"})
    lab.start()
    change = 'write: {{path: x.txt, content: "{}\\n"}}'
    tasks = [work("a", change.format("a")), work("b", change.format("b"))]
    lab.apply(swarm(), project(tasks=tasks))
    lab.wait_phase("Project", "demo", "Failed")
    assert "x.txt" in lab.condition("Project", "demo", "Integrated")["message"]
    tasks[1] = work("b", change.format("a"))
    lab.apply(project(tasks=tasks))
    lab.wait_phase("Project", "demo", "Completed")


def test_a_failing_verification_names_the_command(lab: Lab) -> None:
    lab.repository()
    lab.start()
    verify = ["echo looking && test -f nowhere"]
    lab.apply(swarm(), project(tasks=[work("a")], integration={"verify": verify}))
    lab.wait_phase("Project", "demo", "Failed")
    message = lab.condition("Project", "demo", "Integrated")["message"]
    assert "test -f nowhere" in message


def test_suspend_lets_running_tasks_finish_and_starts_none(lab: Lab) -> None:
    lab.repository()
    lab.start()
    tasks = [work("a", "sleep: 0.5"), work("b", depends_on=["a"])]
    lab.apply(swarm(), project(tasks=tasks))
    lab.wait(lambda: lab.task("demo.a").get("phase") == "Running", "a to run")
    lab.patch("Project", "demo", lambda o: o["spec"].update(suspend=True))
    lab.wait_phase("Task", "demo.a", "Succeeded")
    lab.wait_phase("Project", "demo", "Suspended")
    assert not lab.task("demo.b").get("attempts")
    lab.patch("Project", "demo", lambda o: o["spec"].update(suspend=False))
    lab.wait_phase("Project", "demo", "Completed")


def test_the_base_branch_moves(lab: Lab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a", "sleep: 0.3")]))
    lab.wait(lambda: lab.project("demo").get("repository"), "the base to be pinned")
    pinned = lab.project("demo")["repository"]["baseCommit"]
    moved = lab.commit(repository, {"other.txt": "x\n"})
    lab.wait_phase("Project", "demo", "Completed")
    assert lab.project("demo")["integration"]["baseCommit"] == pinned
    lab.patch("Project", "demo", lambda o: o["spec"]["integration"].update(followBase=True))
    lab.wait(
        lambda: (
            lab.project("demo")["integration"].get("baseCommit") == moved
            and lab.project("demo")["phase"] == "Completed"
        ),
        "the integration to follow the base",
    )
    assert lab.condition("Project", "demo", "UpToDate")["status"] == "True"


def test_a_project_heals_when_its_repository_appears(lab: Lab) -> None:
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a")]))
    lab.wait(
        lambda: lab.condition("Project", "demo", "Accepted").get("reason") == "RepositoryNotFound",
        "the condition",
    )
    lab.repository()
    lab.wait_phase("Project", "demo", "Completed")


def test_a_cycle_is_named_and_heals(lab: Lab) -> None:
    lab.repository()
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a", depends_on=["b"]), work("b", depends_on=["a"])]))
    accepted = lambda: lab.condition("Project", "demo", "Accepted")  # noqa: E731
    lab.wait(lambda: accepted().get("reason") == "DependencyCycle", "the condition")
    lab.apply(project(tasks=[work("a"), work("b", depends_on=["a"])]))
    lab.wait_phase("Project", "demo", "Completed")


def test_prompts_to_all_to_some_and_to_the_first_idle(lab: Lab) -> None:
    lab.start()
    lab.apply(swarm(replicas=3))
    lab.apply(
        prompt("everyone", target={"swarm": "builders", "workers": "all"}),
        prompt("some", target={"swarm": "builders", "workers": "0,2"}),
        prompt("one", target={"swarm": "builders", "workers": 1}),
        prompt("idle"),
        prompt("nobody", target={"swarm": "builders", "workers": "7-8"}),
    )
    for name in ("everyone", "some", "one", "idle"):
        lab.wait_phase("Task", name, "Succeeded")
    lab.wait_phase("Task", "nobody", "Failed")
    assert lab.task("everyone")["targets"] == [0, 1, 2]
    assert lab.task("some")["progress"] == "2/2"
    assert lab.task("one")["attempts"][0]["worker"] == 1
    assert lab.task("nobody")["reason"] == "WorkerNotFound"


def test_limits_of_time(lab: Lab) -> None:
    lab.start()
    lab.apply(swarm())
    retry = {"limit": 0}
    lab.apply(
        prompt("long", script('say: "a"', "sleep: 60"), timeoutSeconds=0.5, retry=retry),
        prompt("silent", script("hang: true"), stallTimeoutSeconds=0.5, retry=retry),
    )
    lab.wait_phase("Task", "long", "Failed")
    lab.wait_phase("Task", "silent", "Failed")
    assert lab.task("long")["attempts"][0]["reason"] == "Timeout"
    assert lab.task("silent")["attempts"][0]["reason"] == "Stalled"
    assert lab.task("silent")["attempts"][0]["class"] == "Timeout"


def test_usage_adds_up_once(lab: Lab) -> None:
    lab.repository()
    lab.start()
    use = "usage: {inputTokens: 1000, cachedInputTokens: 200, outputTokens: 50}"
    tasks = [work("a", use, use), work("b", use, '{run: "exit 1", attempt: 1}')]
    lab.apply(swarm(), project(tasks=tasks))
    lab.wait_phase("Project", "demo", "Completed")
    assert lab.task("demo.a")["usage"]["inputTokens"] == 2000
    assert lab.task("demo.b")["usage"]["inputTokens"] == 2000
    lab.wait(lambda: lab.project("demo").get("usage", {}).get("inputTokens") == 4000, "the sum")
    lab.wait(lambda: lab.swarm("builders").get("usage", {}).get("outputTokens") == 200, "the sum")


def test_a_quota_uses_up_no_attempt(lab: Lab) -> None:
    lab.start()
    lab.apply(swarm())
    error = "{error: {class: quota, retryAfterSeconds: 0.2}, attempt: %d}"
    lab.apply(prompt("p", script(error % 1, error % 2), retry={"limit": 0}))
    lab.wait_phase("Task", "p", "Succeeded")
    assert [a.get("class") for a in lab.task("p")["attempts"]] == ["Quota", "Quota", None]


def test_a_quota_is_waited_for_by_all_and_by_the_next_controller(lab: Lab) -> None:
    lab.start()
    key = {"runtime": "mock", "env": [{"name": "MOCK_API_KEY", "value": "k"}]}
    lab.apply(swarm(agent=key), swarm("cousins", 1, agent=key))
    error = "{error: {class: quota, retryAfterSeconds: 3600}, attempt: 1}"
    lab.apply(prompt("p", script(error), retry={"limit": 0}))
    lab.wait(lambda: lab.task("p").get("reason") == "QuotaExhausted", "the end of its attempt")
    lab.kill()
    lab.apply(prompt("q", swarm="cousins"))
    lab.start()
    lab.wait(lambda: lab.task("q").get("reason") == "QuotaExhausted", "its reason")
    quotas = [lab.swarm(name)["quota"] for name in ("builders", "cousins")]
    assert quotas[0] == quotas[1]
    token = {"codeswarm.dev/retry": "now"}
    lab.patch("Swarm", "cousins", lambda o: o["metadata"]["annotations"].update(token))
    for name in ("p", "q"):
        lab.wait_phase("Task", name, "Succeeded")
    assert [a.get("class") for a in lab.task("p")["attempts"]] == ["Quota", None]
    lab.wait(lambda: "quota" not in lab.swarm("cousins"), "the pause to be forgotten")


def test_routing_goes_where_it_is_allowed(lab: Lab) -> None:
    lab.start()
    lab.apply(
        swarm("builders", routing={"allowTo": ["reviewers"], "maxHops": 1}),
        swarm("reviewers", 1),
    )
    lab.apply(
        prompt("p", script('route: "/swarm[reviewers]/idle look"', 'route: "/swarm[others]/all x"'))
    )
    lab.wait_phase("Task", "p", "Succeeded")
    routed = lab.wait(
        lambda: [t for t in lab.db.list("Task") if t["metadata"]["name"].startswith("routed-")],
        "the routed task",
    )
    assert [t["spec"]["target"]["swarm"] for t in routed] == ["reviewers"]
    lab.wait_phase("Task", routed[0]["metadata"]["name"], "Succeeded")
    assert any(e.reason == "RouteRefused" for e in lab.db.events())


def test_a_planner_that_gives_no_graph(lab: Lab) -> None:
    lab.repository()
    lab.start()
    spec = {"swarm": "builders", "specification": "Nothing.", "retry": {"limit": 0}}
    lab.apply(swarm(), project(planner=spec))
    lab.wait_phase("Project", "demo", "Failed")
    assert lab.condition("Project", "demo", "Planned")["status"] == "False"
    good = script('plan: {tasks: [{task_id: "T/1", title: t, prompt: "Do it."}]}')
    lab.patch("Project", "demo", lambda o: o["spec"]["planner"].update(specification=good))
    lab.wait_phase("Project", "demo", "Completed")
    assert lab.task("demo.t-1")["phase"] == "Succeeded"


def test_the_push_goes_on_to_an_origin(lab: Lab, tmp_path: Path) -> None:
    upstream = lab.repository("upstream.git")
    git("clone", "--quiet", str(upstream), str(tmp_path / "repo.git"))
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a")]))
    lab.wait_phase("Project", "demo", "Completed")
    there = refs(upstream)
    assert there["refs/heads/codeswarm/demo/a"] == lab.task("demo.a")["headCommit"]
    assert "refs/heads/codeswarm/demo/integration" in there


def test_a_deleted_project_leaves_its_branches_and_no_store(lab: Lab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project("first", tasks=[work("a")]))
    lab.wait_phase("Project", "first", "Completed")
    lab.db.delete(Key("Project", "default", "first"))
    lab.wait(lambda: not lab.db.list("Task"), "its tasks to go")
    stores = lab.home.workspaces / "stores"
    lab.wait(lambda: not list(stores.glob("*")), "its store to go")
    left = refs(repository)
    assert "refs/heads/codeswarm/first/a" in left
    assert not [ref for ref in left if ref.startswith("refs/codeswarm/")]
    lab.apply(project("second", tasks=[work("b")]))
    lab.wait_phase("Project", "second", "Completed")


def test_a_branch_of_another_making_is_never_overwritten(lab: Lab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a")]))
    lab.wait_phase("Project", "demo", "Completed")
    old = refs(repository)["refs/heads/codeswarm/demo/a"]
    lab.db.delete(Key("Project", "default", "demo"))
    lab.wait(lambda: not lab.db.list("Task"), "its tasks to go")
    lab.apply(project(tasks=[work("a", 'write: {path: new.txt, content: "x"}')]))
    lab.wait_phase("Project", "demo", "Attention")
    assert lab.task("demo.a")["reason"] == "BranchNotOurs"
    assert refs(repository)["refs/heads/codeswarm/demo/a"] == old
    for branch in ("a", "integration"):
        git("-C", str(repository), "update-ref", "-d", f"refs/heads/codeswarm/demo/{branch}")
    lab.patch("Task", "demo.a", lambda o: o["metadata"]["annotations"].update(
        {"codeswarm.dev/retry": "again"}))  # fmt: skip
    lab.wait_phase("Project", "demo", "Completed")
