"""Processes found by their environment, quickly: tests look for theirs again and again."""

from __future__ import annotations

import os

import psutil


def having(variable: str, beginning: str) -> list[psutil.Process]:
    """Living processes in whose environment a variable begins with this text.

    psutil would read several files of each process, and make a dict of its environment.
    """
    wanted = f"\0{variable}={beginning}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 (no path is needed of most)
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    environment = file.read()
                if wanted in b"\0" + environment:  # a zombie's is empty
                    found.append(psutil.Process(int(name)))
            except (OSError, psutil.Error):
                continue
    return found
