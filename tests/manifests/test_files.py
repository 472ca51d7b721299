"""Every manifest: it parses, what it says exists, and nothing is left out or forgotten."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from controller.resources.admission import admit
from controller.resources.kinds import API_VERSION, GROUP, kinds
from controller.resources.settings import parse_settings
from tests.manifests.documents import EXAMPLES, MANIFESTS, ROOT, load, yaml_files
from tests.manifests.fields import CLASSES, unknown_fields

PATCHES = [
    MANIFESTS / "kind" / "deployment.yaml",
    MANIFESTS / "kind" / "home-volume.yaml",
    MANIFESTS / "kind" / "work-volume.yaml",
    MANIFESTS / "components" / "all-namespaces" / "deployment.yaml",
]
ELSEWHERE = {  # kinds of other projects: Argo CD, Flux, kind, kustomize
    "argoproj.io/v1alpha1",
    "kind.x-k8s.io/v1alpha4",
    "kustomize.config.k8s.io/v1alpha1",
    "kustomize.config.k8s.io/v1beta1",
    "kustomize.toolkit.fluxcd.io/v1",
    "source.toolkit.fluxcd.io/v1",
}
OBJECTS = [
    pytest.param(obj, id=f"{f.relative_to(ROOT)}:{obj.get('kind')}:{n}")
    for f in yaml_files()
    if f.name != "config.yaml"
    for n, obj in enumerate(load(f))
]


@pytest.mark.parametrize("obj", OBJECTS)
def test_an_object_has_only_fields_that_exist(obj):
    if obj["apiVersion"] == API_VERSION:
        admit(obj)
    elif obj["apiVersion"] not in ELSEWHERE:
        assert unknown_fields(obj) == []


def test_unknown_fields_are_found():
    pod = {"containers": [{"name": "a", "imagePullPolice": "Never"}], "replicas": 1}
    obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"replicas": "1", "template": {"spec": pod}},
    }
    assert ("apps/v1", "Deployment") in CLASSES
    assert unknown_fields(obj) == [
        ".spec.replicas: '1' is no int",
        ".spec.template.spec.containers.0.imagePullPolice: unknown",
        ".spec.template.spec.replicas: unknown",
    ]


def folders():
    found = {f.parent for f in yaml_files() if f.name == "kustomization.yaml"}
    return sorted([*found, ROOT / "crds"])


@pytest.mark.parametrize("folder", folders(), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_kustomization_names_every_file_of_its_folder(folder):
    own = next(f for f in folder.iterdir() if f.stem in ("kustomization", "Kustomization"))
    (kustomization,) = load(own)
    named = set(kustomization.get("resources", ()))
    named |= {patch["path"] for patch in kustomization.get("patches", ())}
    for generator in kustomization.get("configMapGenerator", ()):
        named |= set(generator["files"])
    there = {
        f.name for f in folder.iterdir() if f.is_file() and f != own and f.name != "__init__.py"
    }
    assert {name for name in named if "/" not in name} == there


def test_the_crds_folder_is_what_kinds_come_from():
    (kustomization,) = load(ROOT / "crds" / "Kustomization")
    ours = {f"{kind.plural}.yaml" for kind in kinds() if kind.group == GROUP}
    assert set(kustomization["resources"]) == ours


def test_the_settings_are_valid():
    text = (MANIFESTS / "base" / "config.yaml").read_text()
    settings = parse_settings(text, "manifests/base/config.yaml")
    assert settings.limits.local_workers == 64


def test_every_image_has_the_version_of_the_product():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = []
    for file in [*MANIFESTS.rglob("*.yaml"), *EXAMPLES.rglob("*.yaml")]:
        for obj in load(file):
            found += list(images(obj))
    assert len(found) >= 3
    assert set(found) == {f"codeswarm:{version}"}


def images(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "image":
                yield inner
            else:
                yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)


def test_patches_change_what_is_there():
    for file in PATCHES:
        (patch,) = load(file)
        base = [obj for f in (MANIFESTS / "base").glob("*.yaml") for obj in load(f)]
        names = {(obj.get("kind"), obj.get("metadata", {}).get("name")) for obj in base}
        assert (patch["kind"], patch["metadata"]["name"]) in names


def test_nothing_names_this_machine():
    for file in [*yaml_files(), ROOT / "Dockerfile", *Path(ROOT / "image").iterdir()]:
        text = file.read_text()
        assert "localhost:5000" not in text
