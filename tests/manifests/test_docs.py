"""What docs/kubernetes.md says to do: its files exist, and its way out works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest
import yaml

from controller.resources.kinds import API_VERSION
from controller.resources.settings import parse_settings
from tests.manifests.documents import ROOT, built, every, overlay, pick

PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text()


def blocks(language):
    """The fenced blocks of a language, their indentation taken off."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", TEXT, re.S | re.M)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def test_commands_name_files_that_exist():
    for block in blocks("sh"):
        for path in re.findall(r"(?:-k|-f|--config) (\S+/\S+|\S+\.yaml)", block):
            assert (ROOT / path).exists(), path


def test_links_lead_somewhere():
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        if path and "://" not in path:
            assert (PAGE.parent / path).exists(), target
        elif anchor and not path:
            assert anchor in anchors, target


def test_the_overlay_and_the_patch_that_it_shows_build(tmp_path):
    own, settings, policy, _ = blocks("yaml")
    parse_settings(settings, "docs/kubernetes.md")
    shown = yaml.safe_load(own)
    (name,) = [g["name"] for g in shown["configMapGenerator"]]
    shown.update(yaml.safe_load(policy))
    text = yaml.safe_dump(shown).replace("{", "{{").replace("}", "}}")
    text = re.sub(r"https://\S+//([\w/-]+)\?ref=v0\.1\.0", r"{root}/\1", text)
    folder = overlay(tmp_path, text)
    (folder / "config.yaml").write_text(settings)
    objects = built(folder)
    (config,) = every(objects, "ConfigMap")
    assert config["metadata"]["name"].startswith(f"{name}-")
    assert config["data"]["config.yaml"] == settings
    sources = pick(objects, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert {"ipBlock": {"cidr": "192.0.2.10/32"}} in sources


@pytest.mark.cluster
@pytest.mark.skipif(
    not os.environ.get("CODESWARM_TEST_KUBECONFIG"), reason="needs CODESWARM_TEST_KUBECONFIG"
)
def test_finalizers_are_taken_off_as_it_says(crds):
    objects = [
        ("Swarm", "workers", {"provider": {"local": {}}}),
        ("Project", "refs", {"repository": {"url": "./x"}, "workers": [{"swarm": "a"}]}),
        ("Task", "usage", {"target": {"swarm": "a"}, "prompt": "x"}),
    ]
    for kind, finalizer, spec in objects:
        metadata = {"name": "left", "finalizers": [f"codeswarm.dev/{finalizer}"]}
        obj = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        crds.create(obj)
        crds.must("delete", "-n", crds.namespace, kind, "left", "--wait=false")
    left = ("get", "swarms,projects,tasks", "-n", crds.namespace, "-o", "json")
    assert len(json.loads(crds.must(*left))["items"]) == 3
    (way_out,) = [block for block in blocks("sh") if "finalizers" in block]
    environment = {
        **os.environ,
        "KUBECONFIG": os.environ["CODESWARM_TEST_KUBECONFIG"],
        "NAMESPACE": crds.namespace,
    }
    subprocess.run(["bash", "-euo", "pipefail", "-c", way_out], env=environment, check=True)
    deadline = time.monotonic() + 20
    while json.loads(crds.must(*left))["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
