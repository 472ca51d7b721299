"""How the worker's file gets to a login host, and how it is started there.

All commands go through a login shell, since clusters put Slurm and modules on its path by profile
files.  A login shell may print what it likes first: what we look for comes after a known line.
What we pass has no newlines, so that a csh takes it too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from providers.base import ProviderUnreachable
from providers.shell import Channel, Shell
from worker.bundle import build
from worker.wire import MAGIC, clean

CANDIDATES = (
    "python3",
    *(f"python3.{minor}" for minor in range(14, 8, -1)),
    "/usr/libexec/platform-python",
)
"""Where Python is looked for, in this order, if ``pythonPath`` does not say."""
SECONDS = 60.0
"""For one command of the set-up."""
UPLOAD_SECONDS = 180.0
MAX_NOISE = 1024 * 1024
"""Bytes that a login shell may print before our program speaks: what channels' readers hold."""

_NO_PYTHON, _SETUP_FAILED = 96, 97
_LOGIN = (
    'w="$1"; shift; b=sh; command -v bash >/dev/null 2>&1 && b=bash; exec "$b" -lc "$w" "$b" "$@"'
)
_INNER = f'eval "$(printf %s "$1" | base64 -d)" || exit {_SETUP_FAILED}; shift; exec "$@"'
_FIND = (
    'code="$1"; root="$2"; name="$3"; digest="$4"; shift 4; tried=; for p in "$@"; do '
    'case "$p" in "~/"*) p="$HOME/${p#??}";; esac; '
    'q=$(command -v "$p" 2>/dev/null) || continue; '
    'v=$("$q" -E -c "import sys; print(sys.version.split()[0]); '
    'sys.exit(sys.version_info < (3, 9))" </dev/null 2>/dev/null) && '
    'exec "$q" -I -c "import base64,sys; exec(base64.b64decode(sys.argv[1]))" '
    '"$code" "$root" "$name" "$digest"; '
    f'tried="$tried $q(${{v:-fails}})"; done; echo "codeswarm-tried:$tried" >&2; exit {_NO_PYTHON}'
)
_MARK = "codeswarm-setup "
_COMMON = """
import hashlib, json, os, sys
root, name, digest = sys.argv[2:5]
told = {"python": sys.executable, "version": "%d.%d.%d" % sys.version_info[:3]}
os.umask(0o077)
def tell(**more):
    sys.stdout.write("\\ncodeswarm-setup " + json.dumps(dict(told, **more)) + "\\n")
    sys.stdout.flush()
    sys.exit(0)
expanded = os.path.expanduser(root)
if not os.path.isabs(expanded):
    tell(error="InvalidParameters", message=root)
root = os.path.realpath(expanded)
folder = os.path.join(root, "worker")
path = os.path.join(folder, name)
part = os.path.join(folder, ".%s.%d.part" % (name, os.getpid()))
told["root"], told["path"] = root, path
def sha(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
"""
_PROBE = (
    _COMMON
    + """
try:
    os.makedirs(folder, exist_ok=True)
    with open(part, "wb") as file:
        file.write(b"x")
    os.unlink(part)
except OSError as error:
    tell(error="WorkspaceNotWritable", message="%s: %s" % (error.filename or root, error.strerror))
try:
    present = sha(path) == digest
except OSError:
    present = False
tell(present=present)
"""
)
_RECEIVE = (
    _COMMON
    + """
try:
    with open(part, "wb") as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        os.fsync(file.fileno())
    present = sha(part) == digest
    if present:
        os.chmod(part, 0o700)
        os.replace(part, path)
    else:
        os.unlink(part)
except OSError as error:
    tell(error="WorkspaceNotWritable", message="%s: %s" % (error.filename or root, error.strerror))
tell(present=present)
"""
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a host we live, as its user asks for."""

    name: str
    """The host, as messages call it."""
    root: str
    """``workspaceRoot``; may begin with ``~/``."""
    python: str | None = None
    """``pythonPath``."""
    setup: tuple[str, ...] = ()
    """``setupCommands``: run in the login shell before anything else."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The worker's file on a host, and what runs it."""

    place: Place
    python: str
    path: str
    root: str
    """Absolute."""

    def argv(self, kind: str) -> list[str]:
        """How to start it: ``attendant``, or ``transfer``."""
        return login(self.place.setup, [self.python, "-I", self.path, kind, self.root])


def login(setup: Sequence[str], argv: Sequence[str]) -> list[str]:
    """An argument vector that runs another one in a login shell, after some commands."""
    text = " && ".join(f"{{ {command}\n}}" for command in setup)
    coded = base64.b64encode(text.encode()).decode()
    return ["sh", "-c", _LOGIN, "sh", _INNER, coded, *argv]


async def install(shell: Shell, place: Place) -> Installed:
    """Have the worker's file there, sent only if it is not.

    Raises: ProviderUnreachable (``PythonNotFound``, ``SetupFailed``, ``WorkspaceNotWritable``,
        ``InvalidParameters``, ``LoginFailed``), and what the shell raises.
    """
    name, data, digest = await asyncio.to_thread(_bundle)
    told = await _ask(shell, place, _PROBE, (name, digest))
    if not told.get("present"):
        told = await _ask(shell, place, _RECEIVE, (name, digest), data=data, seconds=UPLOAD_SECONDS)
        if not told.get("present"):
            raise ProviderUnreachable(
                "ConnectionLost", f"{place.name}: the worker's file arrived incomplete"
            )
    return Installed(place, told["python"], told["path"], told["root"])


async def _ask(
    shell: Shell,
    place: Place,
    program: str,
    arguments: Sequence[str],
    *,
    data: bytes = b"",
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Run a Python program there; what it tells. Raises: as ``install``."""
    candidates = (place.python,) if place.python else CANDIDATES
    code = base64.b64encode(program.encode()).decode()
    inner = ["sh", "-c", _FIND, "sh", code, place.root, *arguments, *candidates]
    done = await shell.run(login(place.setup, inner), input=data, seconds=seconds, repeatable=True)
    told = _told(done.out)
    if told is None:
        raise failure(place, done.code, done.err)
    if "error" in told:
        raise _refused(place, told)
    return told


def _told(out: bytes) -> dict[str, Any] | None:
    """The last line that is ours."""
    for line in reversed(out.decode(errors="replace").splitlines()):
        if line.startswith(_MARK):
            try:
                told = json.loads(line[len(_MARK) :])
            except ValueError:
                return None
            wanted = ("python", "version", "root", "path")
            good = isinstance(told, dict) and (
                "error" in told or all(isinstance(told.get(name), str) for name in wanted)
            )
            return told if good else None
    return None


def _refused(place: Place, told: dict[str, Any]) -> ProviderUnreachable:
    message = clean(str(told.get("message")))[:500]
    if told["error"] == "WorkspaceNotWritable":
        return ProviderUnreachable(
            "WorkspaceNotWritable",
            f"workspaceRoot {place.root} on {place.name} cannot be written to ({message}): name a "
            "folder on the cluster's shared file system that the login user owns",
        )
    return ProviderUnreachable(
        "InvalidParameters",
        f"workspaceRoot: {place.root!r} is no absolute path on {place.name}; give one, or one "
        "that begins with '~/'",
    )


def failure(place: Place, code: int | None, errors: bytes) -> ProviderUnreachable:
    """Why a program of ours did not come to speak, by its shell's exit status and stderr."""
    text = clean(errors.decode(errors="replace")).strip()
    last = text[-500:]
    if code == _NO_PYTHON:
        tried = text.rpartition("codeswarm-tried:")[2].strip()
        found = f"; too old or not usable: {tried}" if tried else ""
        names = place.python or ", ".join(CANDIDATES)
        return ProviderUnreachable(
            "PythonNotFound",
            f"no Python 3.9 or newer on {place.name} (looked for: {names}{found}): set "
            "pythonPath, or setupCommands such as 'module load python'",
        )
    if code == _SETUP_FAILED and place.setup:
        return ProviderUnreachable(
            "SetupFailed", f"setupCommands failed on {place.name}: {last or 'without a word'}"
        )
    ending = "its connection was cut" if code is None else f"exit status {code}"
    return ProviderUnreachable(
        "ConnectionLost" if code is None else "LoginFailed",
        f"{place.name}: what was started there ended before it spoke ({ending}): "
        f"{last or 'no message'}",
    )


async def spoken(channel: Channel, place: Place, seconds: float = SECONDS) -> None:
    """Pass over what a login shell prints, up to where our program speaks.

    Raises: ProviderUnreachable.
    """
    try:
        async with asyncio.timeout(seconds):
            try:
                await channel.reader.readuntil(b"\n" + MAGIC + b"\n")
                return
            except asyncio.IncompleteReadError:
                code = await channel.wait_closed()
    except asyncio.LimitOverrunError:
        why = "its login shell prints more than a greeting, without end"
    except TimeoutError:
        why = f"nothing of ours was heard within {seconds:.0f} s"
    else:
        raise failure(place, code, channel.errors)
    raise ProviderUnreachable("LoginFailed", f"{place.name}: {why}")


@cache
def _bundle() -> tuple[str, bytes, str]:
    """Name, content and SHA-256 of the worker's file."""
    with tempfile.TemporaryDirectory(prefix="codeswarm-") as folder:
        path = build(Path(folder))
        data = path.read_bytes()
    return path.name, data, hashlib.sha256(data).hexdigest()
