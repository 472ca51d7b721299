"""All measures, one after another: ``python -m bench [--quick]``."""

from __future__ import annotations

import argparse
import subprocess
import sys

FULL: tuple[tuple[str, ...], ...] = (
    ("bench.startup",),
    ("bench.store",),
    ("bench.prompts",),
    ("bench.tasks",),
    ("bench.restart",),
    ("bench.idle",),
    ("bench.scale",),
    ("bench.agents",),
    ("bench.slurm",),
    ("bench.aws",),
    ("bench.kube",),
)
QUICK: tuple[tuple[str, ...], ...] = (
    ("bench.startup", "--rounds", "5"),
    ("bench.prompts", "--prompts", "500", "--single", "50"),
    ("bench.tasks", "--rounds", "1"),
    ("bench.restart", "--tasks", "200", "--kills", "2"),
    ("bench.idle", "--workers", "20", "--seconds", "10"),
    ("bench.scale", "--small", "100", "--large", "400"),
    ("bench.agents", "--rounds", "2", "--turns", "5", "--workers", "2"),
    ("bench.slurm", "--prompts", "10", "--launch", "8", "--many", "16", "--minutes", "0.5"),
    ("bench.aws", "--instances", "4", "--minutes", "0.5"),
    ("bench.kube", "--quick"),
)


def main() -> int:
    """Run each in a process of its own, so that none sees another's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small figures, in a few minutes")
    options = parser.parse_args()
    for module, *arguments in QUICK if options.quick else FULL:
        print(f"== {module} {' '.join(arguments)}".rstrip(), flush=True)
        result = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
        if result.returncode != 0:
            return result.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
