"""A turn of each real agent where there is no network but loopback: ``python -m ... FOLDER``.

It takes this process into a network namespace of its own (network_namespaces(7)), so it is run as
a process by itself.  The last line that it prints is JSON: by runtime, the answer, whether the
command ran, and whom the agent wanted to reach.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from pathlib import Path

from tests.agents.drivers import DRIVERS
from tests.agents.no_network import NoNetwork

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
NO_NAMESPACE = 3
"""Exit code where the system does not give us one."""


def leave_the_network() -> bool:
    """Have nothing but a loopback device from now on; whether the system allowed it."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        return False
    with socket.socket() as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return True


def main(folder: Path) -> int:
    """Do it; the exit code."""
    if not leave_the_network():
        return NO_NAMESPACE
    found = {}
    for kind in DRIVERS:
        with NoNetwork() as network, kind(folder / kind.__name__, network) as driver:  # type: ignore[attr-defined]
            worker = driver.make("w", approvalPolicy="never")
            worker.start()
            answer = worker.ask(driver.prompt({"run": "echo ran > ../ran"}, {"say": "Done."}))
            ran = (worker.base / "ran").exists()
            found[driver.name] = [answer, ran, network.wanted]
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
