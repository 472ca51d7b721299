"""Starts the test cloud's process; much of the time that takes would be JSON that is read again."""

from __future__ import annotations

import functools
import gc
import sys
from pathlib import Path


def read_once() -> None:
    """Let botocore read each of its models once; moto asks for EC2's (megabytes) four times."""
    from botocore.loaders import JSONFileLoader

    load = functools.cache(JSONFileLoader().load_file)
    JSONFileLoader.load_file = lambda _, path: load(path)


if __name__ == "__main__":
    gc.disable()
    read_once()
    from tests.cloud.server import main

    gc.enable()
    gc.freeze()
    main(Path(sys.argv[1]), *sys.argv[2:])
