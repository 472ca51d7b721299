"""Packing the worker and the PyYAML that it needs as one file that any Python from 3.9 on runs.

The archive is reproducible: sorted names, fixed times, named by the hash of what it holds.  Beside
each source lies its bytecode for the building Python, unchecked against a time (PEP 552), so
that a worker of the same version starts without compiling; other versions use the sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can name
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = b"from worker.__main__ import run\n\nrun()\n"
_UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552: hash-based, source not looked at
_MARSHAL_VERSION = 2  # without references between objects: the same code gives the same bytes


def build(target_dir: Path) -> Path:
    """The worker as ``worker-<16 hex digits>.pyz`` in a folder; made only if it is not there.

    Any number of processes may do this at once.

    Args:
        target_dir: made if missing.

    Raises: OSError; BundleError if PyYAML's sources cannot be found.
    """
    contents = sorted(_contents())
    path = target_dir / f"worker-{_digest(contents)[:16]}.pyz"
    if path.exists():
        return path
    target_dir.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target_dir, prefix=".worker-", suffix=".part")
    try:
        with open(handle, "wb") as file:
            file.write(_SHEBANG + _archive(contents))
        Path(part).chmod(0o755)
        Path(part).replace(path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise
    return path


class BundleError(Exception):
    """Something that belongs into the bundle cannot be found."""


def _contents() -> Iterator[tuple[str, bytes]]:
    """Names in the archive and their contents, without the bytecode."""
    yield "__main__.py", _MAIN
    yield "yaml/LICENSE", _licence()
    for package in ("worker", "yaml"):
        root = _folder(package)
        for path in root.rglob("*.py"):
            yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _digest(contents: Sequence[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256(importlib.util.MAGIC_NUMBER)
    for name, data in contents:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _archive(contents: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents:
            _add(archive, name, data)
            if "/" in name and name.endswith(".py"):
                _add(archive, f"{name}c", _bytecode(name, data))
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise BundleError(f"the sources of {package!r} cannot be found")
    return Path(spec.origin).parent


def _licence() -> bytes:
    for file in metadata.files("PyYAML") or ():
        if file.name == "LICENSE":
            return Path(os.fspath(file.locate())).read_bytes()
    raise BundleError("PyYAML's licence cannot be found")


def _bytecode(name: str, source: bytes) -> bytes:
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source)
    return header + marshal.dumps(code, _MARSHAL_VERSION)
