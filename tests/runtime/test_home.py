"""A home has an identity of its own, that is made once and then stays."""

from __future__ import annotations

import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from controller.runtime.home import Home
from controller.store.base import StoreUnavailable


def test_it_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    first = home.identity
    assert str(uuid.UUID(first)) == first
    assert Home.at(tmp_path).identity == first
    file = tmp_path / "identity"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_several_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    code = f"from controller.runtime.home import Home; print(Home.at({str(tmp_path)!r}).identity)"
    asked = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert {one.communicate(timeout=60)[0] for one in asked} == {f"{Home.at(tmp_path).identity}\n"}


@pytest.mark.parametrize("text", ["", "nonsense\n", "\x00"])
def test_one_that_is_broken_is_not_replaced(text: str, tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(text)
    with pytest.raises(StoreUnavailable, match="backup"):
        _ = Home.at(tmp_path).identity
    assert (tmp_path / "identity").read_text() == text


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="identity"):
        _ = Home.at(tmp_path / "nowhere").identity
