"""Argument vectors as the one string that SSH takes for a command.

The other side gives that string to the user's login shell, which need not be a POSIX shell: csh
and tcsh are common on clusters, fish on desktops.  Plain quoting means the same to all of them but
for backslashes, exclamation marks and newlines; an argument that has these, or bytes beyond
ASCII, goes as octal escapes that a POSIX shell of its own turns back.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

_PLAIN = frozenset(range(32, 127)) - frozenset(b"!\\")
_AS_THEY_ARE = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _@+=:,./-"
)


def command_line(argv: Sequence[str]) -> str:
    """One command for any login shell that runs exactly this argument vector.

    Args:
        argv: program and arguments; bytes that are no UTF-8 as surrogates (``os.fsdecode``).

    Raises: ValueError: it is empty, or an argument holds a NUL, which none can.
    """
    if not argv:
        raise ValueError("a command needs a program")
    if any("\0" in word for word in argv):
        raise ValueError("an argument cannot hold a NUL character")
    if all(_PLAIN.issuperset(os.fsencode(word)) for word in argv):
        return shlex.join(argv)
    script = b"exec " + b" ".join(os.fsencode(shlex.quote(word)) for word in argv)
    octal = "".join(chr(byte) if byte in _AS_THEY_ARE else f"\\0{byte:03o}" for byte in script)
    return f"""/bin/sh -c 'eval "$(printf %b "{octal}")"'"""


def with_deadline(argv: Sequence[str], seconds: float) -> list[str]:
    """The same command, killed over there with all of its group after so many seconds.

    A channel that is closed ends nothing by itself, and signals over SSH are not obeyed by every
    server (OpenSSH before 7.9, or for root). ``timeout`` is of GNU coreutils, or of busybox.
    """
    return ["timeout", "-s", "KILL", str(max(1, round(seconds + 0.5))), *argv]
