"""Texts and values by reference, and the folders that paths never leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.resources.admission import admit
from controller.resources.texts import (
    BASE_DIR,
    MAX_TEXT,
    Ref,
    Sources,
    Unresolved,
    resolve_env,
    resolve_path,
    resolve_secret,
    resolve_text,
)

STORED: dict[Ref, dict[str, Any]] = {
    Ref("Secret", "ns", "s"): admit(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "stringData": {"key": "hush", "long": "x" * 70_000},
        }
    ),
    Ref("ConfigMap", "ns", "c"): admit(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "c"},
            "data": {"a.md": "text"},
            "binaryData": {"raw": "/w==", "plain": "aGk="},
        }
    ),
}
CLUSTER = Sources(files=False)


@pytest.fixture
def obj(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "sub").mkdir()
    (folder / "sub" / "a.md").write_text("from a file")
    (tmp_path / "outside.md").write_text("outside")
    (folder / "link.md").symlink_to("../outside.md")
    (folder / "inner.md").symlink_to("sub/a.md")
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "raw").write_bytes(b"\xff")
    (folder / "long").write_text("x" * (MAX_TEXT + 1))
    return {"metadata": {"name": "x", "namespace": "ns", "annotations": {BASE_DIR: str(folder)}}}


def path_of(obj: dict[str, Any], path: str, sources: Sources = Sources()) -> Any:  # noqa: B008
    return resolve_text(obj, {"promptFrom": {"path": path}}, "prompt", STORED.get, sources)


def config(key: str, name: str = "c") -> dict[str, Any]:
    return {"promptFrom": {"configMapKeyRef": {"name": name, "key": key}}}


def test_inline_absent_and_referenced_texts(obj: dict[str, Any]) -> None:
    assert resolve_text(obj, {"prompt": "x"}, "prompt", STORED.get) == "x"
    assert resolve_text(obj, {}, "prompt", STORED.get) is None
    assert resolve_text(obj, config("a.md"), "prompt", STORED.get) == "text"
    assert resolve_text(obj, config("plain"), "prompt", STORED.get) == "hi"
    assert path_of(obj, "sub/a.md") == path_of(obj, "./sub/a.md") == "from a file"
    assert path_of(obj, "inner.md") == "from a file"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.md", "PathOutsideFolder"),
        ("sub/../../outside.md", "PathOutsideFolder"),
        ("/etc/passwd", "PathOutsideFolder"),
        ("link.md", "PathOutsideFolder"),
        ("up/outside.md", "PathOutsideFolder"),
        ("up/up/etc", "FileNotFound"),
        ("a\0b", "PathOutsideFolder"),
        ("", "PathOutsideFolder"),
        ("none.md", "FileNotFound"),
        ("sub", "FileUnreadable"),
        ("loop", "FileUnreadable"),
        ("raw", "NotText"),
        ("long", "TextTooLong"),
    ],
)
def test_paths_never_leave_the_manifests_folder(
    obj: dict[str, Any], path: str, reason: str
) -> None:
    found = path_of(obj, path)
    assert isinstance(found, Unresolved) and found.reason == reason
    assert found.message.startswith("promptFrom: ")


def test_without_a_folder_there_are_no_files() -> None:
    bare = {"metadata": {"name": "x"}}
    assert path_of(bare, "a.md").reason == "NoBaseDirectory"


def test_a_folder_of_a_persona_is_found(obj: dict[str, Any]) -> None:
    found = resolve_path(obj, "./sub", "persona")
    assert isinstance(found, Path) and found.name == "sub"


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("none", "a.md", "ConfigMapNotFound"),
        ("c", "none", "ConfigMapKeyNotFound"),
        ("c", "raw", "NotText"),
    ],
)
def test_config_maps_that_do_not_answer(
    obj: dict[str, Any], name: str, key: str, reason: str
) -> None:
    found = resolve_text(obj, config(key, name), "prompt", STORED.get)
    assert isinstance(found, Unresolved) and found.reason == reason


def secret(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


def test_values_come_from_secrets_and_the_environment(
    obj: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTS_TEST", "here")
    env = [
        {"name": "A", "value": "plain"},
        {"name": "B", "valueFrom": secret("s", "key")},
        {"name": "C", "valueFrom": {"env": "TEXTS_TEST"}},
    ]
    assert resolve_env(obj, env, STORED.get) == {"A": "plain", "B": "hush", "C": "here"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (secret("none", "key"), "SecretNotFound"),
        (secret("s", "none"), "SecretKeyNotFound"),
        (secret("s", "long"), "TextTooLong"),
        ({"env": "TEXTS_TEST_UNSET"}, "EnvironmentVariableNotSet"),
    ],
)
def test_values_that_are_not_there(obj: dict[str, Any], source: Any, reason: str) -> None:
    found = resolve_env(obj, [{"name": "A", "valueFrom": source}], STORED.get)
    assert isinstance(found, Unresolved) and found.reason == reason
    assert "env A" in found.message and "hush" not in found.message


def test_another_namespace_is_not_looked_into(obj: dict[str, Any]) -> None:
    obj["metadata"]["namespace"] = "other"
    found = resolve_secret(obj, secret("s", "key"), STORED.get)
    assert isinstance(found, Unresolved) and found.reason == "SecretNotFound"


def test_in_a_cluster_only_what_settings_allow(
    obj: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTS_TEST", "here")
    assert path_of(obj, "sub/a.md", CLUSTER).reason == "NotInThisHome"
    refused = resolve_secret(obj, {"env": "TEXTS_TEST"}, STORED.get, CLUSTER)
    assert isinstance(refused, Unresolved) and refused.reason == "NotInThisHome"
    allowed = Sources(
        files=False, roots=(str(tmp_path / "manifests"),), environment={"TEXTS_TEST": "there"}
    )
    assert path_of(obj, "sub/a.md", allowed) == "from a file"
    assert resolve_secret(obj, {"env": "TEXTS_TEST"}, STORED.get, allowed) == "there"
