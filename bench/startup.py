"""``codeswarm get`` from shell to output, with a home that holds some objects."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import describe, percentile
from tests.lab import Lab, prompt, swarm


def main() -> None:
    """Run the command many times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    print(describe())
    command = [str(Path(sys.executable).parent / "codeswarm"), "get", "swarms,tasks"]
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        lab.apply(swarm(), *(prompt(f"p{n}") for n in range(50)))
        environment = {**os.environ, "CODESWARM_HOME": str(lab.home.root)}
        found = []
        for _ in range(options.rounds):
            begin = time.monotonic()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            found.append(1000 * (time.monotonic() - begin))
    print(
        f"codeswarm get: median {statistics.median(found[1:]):.0f} ms, "
        f"p95 {percentile(found[1:], 0.95):.0f} ms"
    )


if __name__ == "__main__":
    main()
