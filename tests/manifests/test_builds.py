"""What kustomize makes: overlays build, and every name that is referred to is there."""

from __future__ import annotations

import pytest

from tests.manifests.documents import EXAMPLES, MANIFESTS, built, every, overlay, pick

FOLDERS = [
    MANIFESTS / "base",
    MANIFESTS / "kind",
    EXAMPLES / "kubernetes" / "git-server",
    EXAMPLES / "gitops" / "apps" / "codeswarm",
    EXAMPLES / "gitops" / "teams" / "greeters",
    EXAMPLES / "gitops" / "clusters" / "alder",
    EXAMPLES / "gitops" / "clusters" / "birch",
]
EVERYWHERE = """\
namespace: agents
resources: [{root}/manifests/base]
components: [{root}/manifests/components/all-namespaces]
"""
ARGO = """\
resources: [installed.yaml]
components: [{root}/manifests/argocd]
"""


def identity(obj):
    return (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_folder_builds_into_distinct_objects(folder):
    objects = built(folder)
    assert len({identity(obj) for obj in objects}) == len(objects) > 0


def workloads(objects):
    return [(d, d["spec"]["template"]["spec"]) for d in every(objects, "Deployment")]


@pytest.mark.parametrize("folder", FOLDERS[:4], ids=lambda f: f.name)
def test_what_a_pod_refers_to_is_there(folder):
    objects = built(folder)
    there = {identity(obj) for obj in objects}
    assert workloads(objects)
    for deployment, pod in workloads(objects):
        space = deployment["metadata"]["namespace"]
        volumes = {v["name"]: v for v in pod["volumes"]}
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", space, volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", space, claim) in there
        mounted = [m["name"] for c in pod["containers"] for m in c["volumeMounts"]]
        assert set(mounted) == volumes.keys()
        if "serviceAccountName" in pod:
            assert ("ServiceAccount", space, pod["serviceAccountName"]) in there


@pytest.mark.parametrize("folder", FOLDERS[:4], ids=lambda f: f.name)
def test_services_and_policies_find_their_pods(folder):
    objects = built(folder)
    for obj in [*every(objects, "Service"), *every(objects, "NetworkPolicy")]:
        spec = obj["spec"]
        selector = spec.get("selector") or spec["podSelector"]["matchLabels"]
        found = [
            pod
            for d, pod in workloads(objects)
            if selector.items() <= d["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(found) == 1, identity(obj)
        ports = {p["name"] for c in found[0]["containers"] for p in c.get("ports", ())}
        named = [p["targetPort"] for p in spec.get("ports", ())]
        named += [p["port"] for rule in spec.get("ingress", ()) for p in rule["ports"]]
        assert named and set(named) <= ports
    for deployment, _ in workloads(objects):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("folder", [FOLDERS[0], FOLDERS[3]], ids=lambda f: f.name)
def test_bindings_bind_what_is_there(folder):
    objects = built(folder)
    there = {identity(obj) for obj in objects}
    bindings = [*every(objects, "RoleBinding"), *every(objects, "ClusterRoleBinding")]
    assert bindings
    for binding in bindings:
        role = binding["roleRef"]
        space = binding["metadata"]["namespace"] if role["kind"] == "Role" else ""
        assert (role["kind"], space, role["name"]) in there
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"], subject["name"]) in there


def test_on_kind_only_the_image_that_was_built_there_runs():
    pod = pick(built(MANIFESTS / "kind"), "Deployment")["spec"]["template"]["spec"]
    for container in pod["containers"]:
        assert container["image"] == "codeswarm:dev"
        assert container["imagePullPolicy"] == "Never"


def test_base_serves_one_namespace_and_the_component_all_of_them(tmp_path):
    base = built(MANIFESTS / "base")
    everywhere = built(overlay(tmp_path, EVERYWHERE))
    (one, _), (all_, _) = (
        pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        for objects in (base, everywhere)
    )
    assert one["args"] == ["controller", "run"]
    assert all_["args"] == ["controller", "run", "--all-namespaces"]
    assert not [r for r in every(base, "ClusterRole") if "codeswarm-controller" in str(r)]
    wide = pick(everywhere, "ClusterRole", "codeswarm-controller")
    assert wide["rules"] == pick(everywhere, "Role", "codeswarm-controller")["rules"]
    assert not [r for r in wide["rules"] if "leases" in r["resources"]]


def test_another_namespace_is_one_line(tmp_path):
    for obj in built(overlay(tmp_path, EVERYWHERE)):
        assert obj["metadata"].get("namespace", "agents") == "agents"
        for subject in obj.get("subjects", ()):
            assert subject["namespace"] == "agents"
        if obj["kind"] == "Namespace":
            assert obj["metadata"]["name"] == "agents"


def test_argocds_own_settings_stay(tmp_path):
    installed = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
data:
  url: https://argocd.example.com
"""
    folder = overlay(tmp_path, ARGO)
    (folder / "installed.yaml").write_text(installed)
    data = pick(built(folder), "ConfigMap", "argocd-cm")["data"]
    assert data["url"] == "https://argocd.example.com"
    assert len(data) == 6
