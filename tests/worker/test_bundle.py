"""The worker as one file, and the oldest Python that must run it."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.harness import ROOT, Worker, block
from worker.bundle import build

SOURCES = sorted((ROOT / "worker").rglob("*.py"))


def test_it_is_made_once_and_alike(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    assert first.name == second.name and first.name.startswith("worker-")
    assert len(first.stem) == len("worker-") + 16 and first.suffix == ".pyz"
    assert first.read_bytes() == second.read_bytes()
    before = first.stat().st_mtime_ns
    assert build(tmp_path / "a") == first and first.stat().st_mtime_ns == before
    assert [p.name for p in (tmp_path / "a").iterdir()] == [first.name]


def test_it_holds_the_worker_and_pure_yaml_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path)) as archive:
        names = set(archive.namelist())
        assert "MIT" in archive.read(
            "yaml/LICENSE"
        ).decode() or b"Permission is hereby" in archive.read("yaml/LICENSE")
    sources = {name for name in names if name.endswith(".py")}
    assert {name.split("/")[0] for name in names} == {"__main__.py", "worker", "yaml"}
    assert {str(p.relative_to(ROOT)) for p in SOURCES} <= sources
    assert names - sources - {f"{name}c" for name in sources} == {"yaml/LICENSE"}


def test_a_worker_runs_from_it_alone(make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    worker = make_worker()
    worker.argv = (sys.executable, "-I", "-S", str(build(tmp_path / "bundle")))
    worker.start()
    assert worker.ask(block({"say": "hello"}))["answer"] == "hello"
    loaded = {"run": "tr '\\0' ' ' < /proc/$PPID/cmdline"}
    assert worker.ask(block(loaded))["status"] == "completed"
    assert "worker-" in worker.wait("command_completed")["data"]["output"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_fit_for_python_3_9(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    assert "from __future__ import annotations" in source or len(tree.body) <= 1
    annotations = {
        id(node)
        for owner in ast.walk(tree)
        for value in (getattr(owner, "annotation", None), getattr(owner, "returns", None))
        if value is not None
        for node in ast.walk(value)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.BitOr)
            and id(node) not in annotations
        ):
            sides = {type(node.left).__name__, type(node.right).__name__}
            types = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & {
                "str",
                "int",
                "None",
            }
            assert not types and sides != {"Constant"}, f"line {node.lineno}: X | Y at run time"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            named = {keyword.arg for keyword in node.keywords}
            assert not (node.func.id == "zip" and "strict" in named), f"line {node.lineno}"
            assert not (node.func.id == "dataclass" and named & {"slots", "kw_only"})
        if isinstance(node, ast.ImportFrom) and node.module == "typing" and node.col_offset == 0:
            late = {"NotRequired", "Self", "assert_never", "override", "TypeAlias", "ParamSpec"}
            assert not {alias.name for alias in node.names} & late


SDK = "claude_agent_sdk"
SDK_USERS = {"claude_events", "claude_process", "claude_session", "claude_turn"}
"""Imported only once it is known that the SDK is there."""
NO_WORKERS = {
    "attendant", "connection", "follower", "machine", "packing", "streams", "wire", "wire_values",
}  # fmt: skip
"""What serves a controller, and what both sides of a connection use: no worker loads it."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_needs_the_standard_library_only(path: Path) -> None:
    client = path.name.startswith(("codex", "claude"))  # loaded with that agent only
    serves = path.relative_to(ROOT / "worker").parts[0].removesuffix(".py") in NO_WORKERS
    tree = ast.parse(path.read_text())
    sdk = path.name.startswith("claude")
    loads_sdk = any(isinstance(n, ast.ImportFrom) and n.module == SDK for n in tree.body)
    assert not loads_sdk or path.stem in SDK_USERS
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            if sdk and top == SDK:
                continue
            assert top in {"worker", "yaml"} or top in sys.stdlib_module_names, name
            slow = {"logging", "urllib"} | (set() if client else {"asyncio"})
            assert loads_sdk or serves or top not in slow, "slow to load, for every worker"
            within = name.removeprefix("worker.").split(".")[0] if top == "worker" else ""
            assert serves or node.col_offset > 0 or within not in NO_WORKERS, "slow to load"
