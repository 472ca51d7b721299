"""Lines of sshd_config that every sshd of the tests has."""

from __future__ import annotations

COMMON = (
    "PidFile none",
    "StrictModes no",  # folders of tests lie in world-writable ones
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin prohibit-password",
    "MaxStartups 100",
    "UseDNS no",
    "PrintMotd no",
    "PrintLastLog no",
    "LogLevel VERBOSE",
)
