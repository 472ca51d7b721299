"""The manifests as a cluster gets them: files, and what kustomize makes of folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS, EXAMPLES = ROOT / "manifests", ROOT / "examples"
NEWEST_LACKING = 5
"""kustomize below this major version lacks what is used here (kubectl 1.27 has 5.0)."""

Document = dict[str, Any]


def load(path: Path) -> list[Document]:
    """The documents of a file that are not empty."""
    return [d for d in yaml.safe_load_all(path.read_text("utf-8")) if d is not None]


def yaml_files() -> list[Path]:
    """Every YAML file that goes to a cluster, and kustomize's own."""
    found = [f for folder in (MANIFESTS, EXAMPLES) for f in folder.rglob("*.yaml")]
    return sorted([*found, ROOT / "crds" / "Kustomization", ROOT / "kind-config.yaml"])


@cache
def _kubectl() -> str | None:
    """A kubectl with a kustomize that is new enough."""
    program = shutil.which("kubectl")
    if program:
        done = subprocess.run(
            [program, "version", "--client", "-o", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            version = json.loads(done.stdout).get("kustomizeVersion", "v0").lstrip("v")
            if int(version.partition(".")[0]) >= NEWEST_LACKING:
                return program
    return None


@cache
def built(folder: Path) -> tuple[Document, ...]:
    """What ``kubectl kustomize`` makes of a folder; a test is skipped where there is none."""
    program = _kubectl()
    if program is None:
        reason = "needs kubectl 1.27 or newer, for its kustomize"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [program, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def pick(documents: tuple[Document, ...], kind: str, name: str = "") -> Document:
    """The one object of a kind and name."""
    found = [d for d in documents if d["kind"] == kind and name in ("", d["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def every(documents: tuple[Document, ...], kind: str) -> list[Document]:
    """All objects of a kind."""
    return [d for d in documents if d["kind"] == kind]


def overlay(folder: Path, text: str) -> Path:
    """A kustomize folder of a test's own; ``{root}`` in the text is the way to the checkout."""
    folder.mkdir(parents=True, exist_ok=True)
    way = os.path.relpath(ROOT, folder.resolve())
    (folder / "kustomization.yaml").write_text(text.format(root=way))
    return folder
