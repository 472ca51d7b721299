"""The image's recipe, as far as that goes without a container engine; and the wheel in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.manifests.documents import MANIFESTS, ROOT, built, pick

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]


def instructions():
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


STEPS = instructions()
LAST = STEPS[max(n for n, (name, _) in enumerate(STEPS) if name == "FROM") :]


def argument(name):
    (found,) = [rest for step, rest in LAST if step == name]
    return found


def test_instructions_are_known_and_stages_named():
    known = {
        "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "EXPOSE", "ENTRYPOINT",
    }  # fmt: skip
    assert {name for name, _ in STEPS} <= known
    bases = [rest for name, rest in STEPS if name == "FROM"]
    assert bases == ["python:3.12-slim-bookworm AS build", "python:3.12-slim-bookworm"]
    sources = re.findall(r"(?:--from=|from=)(\w+)", " ".join(rest for _, rest in STEPS))
    assert set(sources) == {"build"}


def test_the_image_runs_the_product_below_an_init_as_a_plain_user():
    assert json.loads(argument("ENTRYPOINT")) == ["tini", "--", "codeswarm"]
    assert argument("USER") == "10001:10000"
    run = " ".join(rest for name, rest in LAST if name == "RUN")
    assert "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists/*" in run
    assert not re.search(r"curl|wget|chmod|sudo|ADD", run)


def test_users_are_those_of_the_pod():
    run = " ".join(rest for name, rest in LAST if name == "RUN")
    users = {int(uid) for uid in re.findall(r"--uid (\d+)", run)}
    groups = {int(gid) for gid in re.findall(r"--gid (\d+)", run)}
    pod = pick(built(MANIFESTS / "base"), "Deployment")["spec"]["template"]["spec"]
    assert users == {c["securityContext"]["runAsUser"] for c in pod["containers"]}
    assert groups == {pod["securityContext"]["fsGroup"]}


def test_labels_and_versions():
    labels = dict(re.findall(r'(org\.opencontainers\.image\.\w+)="([^"]*)"', argument("LABEL")))
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]
    assert f"codeswarm=={VERSION}" in " ".join(rest for _, rest in LAST)


def locked(name):
    """Names and versions of a file of pinned requirements, each with its hashes."""
    text = (ROOT / "image" / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64} *", h) for h in hashes)
            package, _, version = requirement.split(";")[0].strip().partition("==")
            assert version, line[:60]
            found[canonicalize_name(package)] = version.strip()
    return found


def test_pinned_versions_are_those_that_the_product_asks_for():
    pinned = locked("requirements.txt")
    for text in PROJECT["project"]["dependencies"]:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        assert name in pinned, f"{name} is not in image/requirements.txt: make it anew"
        assert wanted.specifier.contains(pinned[name]), f"{name} {pinned[name]}"


def test_pinned_versions_of_the_build():
    (wanted,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert wanted.specifier.contains(locked("requirements-build.txt")[wanted.name])


def test_the_build_context_has_what_the_wheel_is_made_of_and_no_more():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["shared-data"], "pyproject.toml", "image"}
    needed |= {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert allowed == needed
    assert all((ROOT / name).exists() for name in allowed)


def test_the_kind_config_is_one_node():
    config = yaml.safe_load((ROOT / "kind-config.yaml").read_text())
    assert (config["kind"], config["name"]) == ("Cluster", "codeswarm")
    assert [node["role"] for node in config["nodes"]] == ["control-plane"]


def pip(*arguments, **options):
    command = [sys.executable, "-m", "pip", *arguments]
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run([*command, *quiet], check=True, capture_output=True, timeout=110, **options)


def test_the_wheel_has_all_and_its_program_runs(tmp_path):
    pip("wheel", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for file in (ROOT / "crds").rglob("*.yaml"):
        assert str(file.relative_to(ROOT)) in names
    assert "controller/resources/baseline.md" in names
    data = f"codeswarm-{VERSION}.data/data/share/doc/codeswarm"
    for file in (ROOT / "docs").rglob("*.md"):
        assert f"{data}/{file.relative_to(ROOT / 'docs')}" in names
    assert not [name for name in names if name.startswith("tests/")]

    target = tmp_path / "installed"
    pip("install", "--no-index", "--target", str(target), str(wheel))
    environment = {"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    for command, said in [
        ([str(target / "bin" / "codeswarm"), "explain", "swarm.spec.replicas"], "replicas"),
        ([sys.executable, "-c", "import crds; print(crds.__file__)"], str(target)),
    ]:
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_the_image_with_agents_has_the_versions_that_are_tested():
    text = (ROOT / "image" / "agents.Dockerfile").read_text()
    (codex,) = re.findall(r"^CODEX := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f" {codex} " in text
    (sdk,) = re.findall(r"(claude-agent-sdk==\S+)", text)
    (asked,) = PROJECT["project"]["optional-dependencies"]["claude"]
    assert Requirement(asked).specifier.contains(sdk.partition("==")[2])
    assert f"ARG BASE=codeswarm:{VERSION}\n" in text
    assert text.rstrip().endswith("USER 10001:10000")
