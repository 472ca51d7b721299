"""What the cluster's client is made of: kubeconfigs, notes of what was applied, faults, options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import kube_config, last_applied
from cli.errors import CliError
from cli.kube_faults import explained
from controller.resources import kinds
from controller.store.applied import manifest_of, merge_resource
from controller.store.base import Forbidden, Key, NotFound
from controller.store.kube_rest import Cause, Rejected, path_of, refusal
from tests.cli.conftest import Run
from tests.cli.samples import project, swarm

KEY = Key("Swarm", "default", "builders")


def write(path: Path, *names: str, current: str = "", namespace: str = "") -> Path:
    """A kubeconfig with some contexts."""
    inner = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    document: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": name, "context": inner} for name in names],
    }
    if current:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return path


# --- kubeconfigs ----------------------------------------------------------------------------


def test_a_context_and_its_namespace(tmp_path: Path) -> None:
    file = write(tmp_path / "config", "one", "two", current="one", namespace="agents")
    assert kube_config.place(str(file), None).context == "one"
    assert kube_config.place(str(file), "two").namespace == "agents"


def test_of_several_files_the_first_word_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a", "one", current="one", namespace="a")
    second = write(tmp_path / "b", "one", "two", current="two", namespace="b")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    assert kube_config.place(None, None).context == "one"
    assert kube_config.place(None, None).namespace == "a"
    assert kube_config.place(None, "two").namespace == "b"


@pytest.mark.parametrize(
    ("text", "context", "message"),
    [
        ("contexts: []", None, "has no current context"),
        ("contexts: []", "x", 'there is no context "x" in .* (there is none)'),
        ("contexts: [{name: team}]", "taem", 'did you mean "team"?'),
        ("a: [", None, "cannot be read: it is not YAML"),
        ("contexts: 7", "x", 'there is no context "x"'),
        ("- 1", None, "there is no kubeconfig"),
        ("current-context: gone\ncontexts: [5, {name: 7}]", None, 'no context "gone"'),
    ],
)
def test_kubeconfigs_that_are_not_right(
    tmp_path: Path, text: str, context: str | None, message: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(CliError) as caught:
        kube_config.place(str(file), context)
    for part in message.split(".*"):
        assert part.strip() in str(caught.value)


def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CliError, match="no such file"):
        kube_config.place(str(tmp_path / "none"), None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(CliError, match="--kubeconfig or KUBECONFIG"):
        kube_config.place(None, None)


# --- options --------------------------------------------------------------------------------


def test_home_and_context_exclude_each_other(run: Run, tmp_path: Path) -> None:
    result = run("get", "swarms", "--home", str(tmp_path), "--context", "x")
    assert result.exit_code == 2
    assert "--home names a file home" in result.stderr


def test_a_home_that_is_named_outweighs_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODESWARM_CONTEXT", "x")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "home" / "transcripts").mkdir(parents=True)
    assert run("get", "swarms", "--home", str(tmp_path / "home")).exit_code == 0
    assert run("get", "swarms", "--context", "").exit_code == 0
    assert run("get", "swarms").exit_code == 5


def test_the_file_home_does_not_load_the_client_library(run: Run) -> None:
    code = (
        "import sys\nfrom cli.main import cli\n"
        "try: cli.main(['get', 'swarms'])\nexcept SystemExit: pass\n"
        "assert not {'kubernetes', 'urllib3', 'cli.kube_client'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("where", ["before", "after"])
def test_kubectl_plugin_takes_options_before_and_after_the_verb(tmp_path: Path, where: str) -> None:
    file = write(tmp_path / "config", "team", current="team", namespace="agents")
    options = ["--kubeconfig", str(file), "--context", "team", "-n", "other"]
    words = [*options, "up"] if where == "before" else ["up", *options]
    program = str(Path(sys.executable).parent / "kubectl-codeswarm")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "kubectl --context team -n codeswarm scale deployment/codeswarm" in done.stderr


def test_kubectl_plugin_means_the_current_context(tmp_path: Path) -> None:
    file = write(tmp_path / "config", "team", current="team")
    program = str(Path(sys.executable).parent / "kubectl-codeswarm")
    environment = {"KUBECONFIG": str(file), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [program, "get", "swarms"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 5
    assert done.stderr == "error: http://127.0.0.1:1 does not answer: Connection refused\n"


@pytest.mark.parametrize("verb", ["up", "down"])
def test_verbs_of_the_file_home_say_what_to_do(run: Run, tmp_path: Path, verb: str) -> None:
    file = write(tmp_path / "config", "team", current="team")
    result = run(verb, "--kubeconfig", str(file))
    assert result.exit_code == 1
    assert "scale deployment/codeswarm --replicas=" in result.stderr


def test_a_persona_of_this_machine_is_refused(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "config", "team", current="team")
    result = run("launch", "x", "--agents", str(tmp_path), "--kubeconfig", str(file))
    assert result.exit_code == 1
    assert "configMapRef" in result.stderr


# --- what was applied last --------------------------------------------------------------------

KUBECTL = (
    '{"apiVersion":"codeswarm.dev/v1alpha1","kind":"Swarm","metadata":{"annotations":{},'
    '"name":"builders","namespace":"default"},"spec":{"agent":{"runtime":"mock"},'
    '"provider":{"local":{}},"replicas":2,'
    '"systemPrompt":"a \\u003c b \\u0026 c \\u003e d é \\u2028 x"}}\n'
)
"""As kubectl 1.20 wrote it."""


def noted(manifest: dict[str, Any], live: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object after ``manifest`` was merged and noted."""
    schema = kinds.open_api_schema(manifest["kind"])
    clean = manifest_of(manifest)
    obj = merge_resource(last_applied.of(live), clean, live, schema)
    last_applied.note(obj, clean, live, schema)
    return obj


def test_the_note_is_kubectls_to_the_byte() -> None:
    obj = swarm()
    obj["spec"]["systemPrompt"] = "a < b & c > d é \u2028 x"
    annotations = noted(obj)["metadata"]["annotations"]
    assert annotations == {last_applied.ANNOTATION: KUBECTL}


def test_a_note_that_says_the_same_stays() -> None:
    live = noted(swarm())
    text = json.dumps(
        json.loads(live["metadata"]["annotations"][last_applied.ANNOTATION]), indent=1
    )
    live["metadata"]["annotations"][last_applied.ANNOTATION] = text
    again = noted(swarm(), live)
    assert again["metadata"]["annotations"][last_applied.ANNOTATION] == text


def large(count: int) -> dict[str, Any]:
    """A project whose manifest is no annotation."""
    tasks = [{"name": f"t{n}", "title": "T", "prompt": "x" * 4000} for n in range(count)]
    return project(tasks=tasks)


def test_a_large_manifest_is_noted_without_values() -> None:
    live = noted(large(100))
    annotations = live["metadata"]["annotations"]
    assert set(annotations) == {last_applied.FIELDS}
    assert len(annotations[last_applied.FIELDS]) < 20_000
    live["spec"]["maxParallel"] = 3  # somebody else's
    live["spec"]["tasks"].append({"name": "theirs", "prompt": "y"})
    fewer = large(80)
    for task in fewer["spec"]["tasks"]:
        del task["title"]
    after = noted(fewer, live)
    assert [t["name"] for t in after["spec"]["tasks"]] == [*(f"t{n}" for n in range(80)), "theirs"]
    assert all("title" not in task for task in after["spec"]["tasks"])
    assert after["spec"]["maxParallel"] == 3
    small = noted(large(2), after)
    assert set(small["metadata"]["annotations"]) == {last_applied.ANNOTATION}
    assert [t["name"] for t in small["spec"]["tasks"]] == ["t0", "t1", "theirs"]


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", '{"metadata": 5, "spec": 7}', "[" * 100_000,
             '{"metadata": {"labels": [1]}, "spec": {"agent": ["x"]}}'],
)  # fmt: skip
def test_a_note_that_somebody_spoilt_does_no_harm(text: str) -> None:
    live = {**swarm(), "metadata": {**swarm()["metadata"], "namespace": "default"}}
    live["metadata"]["annotations"] = {last_applied.ANNOTATION: text}
    after = noted(swarm(replicas=5), live)
    assert after["spec"]["replicas"] == 5


# --- faults ---------------------------------------------------------------------------------


def test_faults_of_the_server_have_their_fields() -> None:
    answer = {
        "message": 'Swarm "builders" is invalid: ...',
        "reason": "Invalid",
        "details": {"causes": [{"field": "spec.replicas", "message": "Invalid value: -1"}]},
    }
    error = refusal(422, answer)
    assert str(explained(KEY, error)) == "Swarm/builders: spec.replicas: Invalid value: -1"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            Rejected('strict decoding error: unknown field "spec.a", unknown field "spec.b.c"'),
            "Swarm/builders: spec.a: unknown field\nSwarm/builders: spec.b.c: unknown field",
        ),
        (
            NotFound('namespaces "default" not found'),
            'Swarm/builders: metadata.namespace: there is no namespace "default" '
            "(kubectl create namespace default)",
        ),
        (Forbidden("swarms is forbidden"), "Swarm/builders: swarms is forbidden"),
        (Rejected("no", (Cause("<nil>", "too much"),)), "Swarm/builders: too much"),
    ],
)
def test_faults_in_words(error: Any, text: str) -> None:
    assert str(explained(KEY, error)) == text


def test_paths() -> None:
    assert path_of("Task", "a", "b.c", "status") == (
        "/apis/codeswarm.dev/v1alpha1/namespaces/a/tasks/b.c/status"
    )
    assert path_of("Secret", None) == "/api/v1/secrets"
    assert path_of("Event", "a") == "/api/v1/namespaces/a/events"
    assert path_of("Task", "a/b", "../c").endswith("/namespaces/a%2Fb/tasks/..%2Fc")
