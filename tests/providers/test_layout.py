"""Names that must not lead out of the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import ProviderError, SwarmHandle
from providers.layout import Layout
from worker.paths import component, write_private

UID = "0123456789abcdef"


@given(st.text(max_size=300))
def test_a_component_is_one_and_visible(name: str) -> None:
    try:
        safe = component(name)
    except ProviderError:
        return
    assert Path("/root", safe).resolve().parent == Path("/root")
    assert safe == name
    assert not safe.startswith((".", "-"))


@pytest.mark.parametrize("bad", ["", ".", "..", "../x", "/etc", "a/b", "a\0b", "a\n", ".hidden"])
def test_no_name_leads_out(tmp_path: Path, bad: str) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(ProviderError, match="cannot name a folder"):
        layout.job_dir(SwarmHandle("default", "team", UID), bad)
    with pytest.raises(ProviderError, match="cannot name a folder"):
        layout.swarm_dir(SwarmHandle(bad, "team", UID))
    if bad:
        with pytest.raises(ProviderError, match="cannot name a folder"):
            layout.swarm_dir(SwarmHandle("default", bad + "/..", UID))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", ["default", "default/team-01234567", "default/team-01234567/job"])
@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_nothing_is_done_behind_a_symlink(tmp_path: Path, level: str, kind: str) -> None:
    root, precious = tmp_path / "root", tmp_path / "precious"
    precious.mkdir()
    (root / level).parent.mkdir(parents=True)
    if kind == "symlink":
        (root / level).symlink_to(precious)
    else:
        (root / level).write_text("")
    layout, swarm = Layout(root), SwarmHandle("default", "team", UID)
    for act in (layout.make, layout.existing):
        with pytest.raises(ProviderError) as refused:
            act(swarm, "job")
        assert refused.value.reason == "UnsafePath"
    if not level.endswith("job"):
        with pytest.raises(ProviderError) as refused:
            layout.open(swarm)
        assert refused.value.reason == "UnsafePath"
    assert list(precious.iterdir()) == []


def test_folders_are_private(tmp_path: Path) -> None:
    path = Layout(tmp_path / "a" / "b").make(SwarmHandle("default", "team", UID), "job")
    assert path == tmp_path / "a" / "b" / "default" / "team-01234567" / "job"
    for folder in (path, path.parent, path.parent.parent, tmp_path / "a" / "b"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_workspace_root_must_be_absolute(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    swarm = SwarmHandle("default", "team", UID, {"workspaceRoot": "relative/path"})
    with pytest.raises(ProviderError, match=r"local\.workspaceRoot"):
        layout.swarm_dir(swarm)
    swarm = SwarmHandle("default", "team", UID, {"workspaceRoot": str(tmp_path / "scratch")})
    assert layout.swarm_dir(swarm) == tmp_path / "scratch" / "default" / "team-01234567"


def test_a_private_file_replaces_a_symlink_instead_of_following_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    for name in ("env", ".env.part"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    write_private(tmp_path / "env", b"new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "env").read_bytes() == b"new"
    assert os.lstat(tmp_path / "env").st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env", "precious"]
