"""Tasks with commit and push, and their integration, against a plain shell loop.

The loop does the same git commands, in two processes, on the same machine in the same run:
checkout, clean, add, commit, diff-tree, push for each task, then one merge each and a push.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.machine import describe, spread
from tests.lab import Lab, project, swarm, work

LOOP = r"""
set -e
dir=$1; first=$2; last=$3; base=$4
git init -q "$dir"; cd "$dir"
echo "$REMOTE/objects" > .git/objects/info/alternates
git config user.name You; git config user.email you@example.com; git config gc.auto 0
i=$first
while [ "$i" -le "$last" ]; do
  git checkout -q -f --detach "$base"
  git clean -ffdxq
  echo "t$i" > "t$i.txt"
  git add -A
  git commit -q -m "t$i"
  git diff-tree -r --name-only "$base" HEAD > /dev/null
  git push -q "$REMOTE" "HEAD:refs/attempts/$i/1" "HEAD:refs/heads/loop/t$i"
  i=$((i + 1))
done
"""
MERGE = r"""
set -e
dir=$1; count=$2; base=$3
git init -q "$dir"; cd "$dir"
git config user.name You; git config user.email you@example.com; git config gc.auto 0
git fetch -q "$REMOTE" '+refs/heads/*:refs/remotes/origin/*'
git checkout -q --detach "$base"
i=1
while [ "$i" -le "$count" ]; do
  git merge -q --no-ff --no-edit -m "Merge t$i" "origin/loop/t$i"
  i=$((i + 1))
done
git push -q "$REMOTE" HEAD:refs/heads/loop/integration
"""


def loop_seconds(path: Path, count: int) -> float:
    """The shell loop's time for ``count`` tasks and their integration."""
    with Lab(path) as lab:
        repository = lab.repository()
        base = subprocess.run(
            ["git", "-C", str(repository), "rev-parse", "main"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        environment = {"REMOTE": str(repository), "PATH": "/usr/bin:/bin:/usr/local/bin"}
        half = count // 2
        begin = time.monotonic()
        halves = [
            subprocess.Popen(
                ["sh", "-c", LOOP, "sh", str(path / f"w{n}"), str(first), str(last), base],
                env=environment,
            )
            for n, (first, last) in enumerate(((1, half), (half + 1, count)))
        ]
        assert all(process.wait() == 0 for process in halves)
        subprocess.run(
            ["sh", "-c", MERGE, "sh", str(path / "m"), str(count), base],
            env=environment, check=True,
        )  # fmt: skip
        return time.monotonic() - begin


def swarm_seconds(path: Path, count: int, workers: int) -> float:
    """Codeswarm's time from the applied project to its completion."""
    with Lab(path) as lab:
        lab.repository()
        lab.start()
        lab.apply(swarm(replicas=workers))
        lab.wait_phase("Swarm", "builders", "Running")
        tasks = [work(f"t{n}") for n in range(1, count + 1)]
        begin = time.monotonic()
        lab.apply(project(tasks=tasks))
        lab.wait_phase("Project", "demo", "Completed", deadline=300)
        return time.monotonic() - begin


def main() -> None:
    """Alternate both, and print the ratio of each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(describe())
    ours, loops, ratios = [], [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            loops.append(options.tasks / loop_seconds(Path(one), options.tasks))
            ours.append(options.tasks / swarm_seconds(Path(two), options.tasks, options.workers))
        ratios.append(ours[-1] / loops[-1])
    print(f"{options.tasks} tasks with git and integration, {options.workers} workers")
    print(f"  codeswarm   {spread(ours)} tasks/s")
    print(f"  shell loop  {spread(loops)} tasks/s")
    print(
        f"  ratio       {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"
    )


if __name__ == "__main__":
    main()
