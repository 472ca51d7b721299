"""What is given to sbatch for one worker: its arguments and its batch script.

The script is the same for all workers but for a few words, each quoted for the shell.  It claims
the worker's folder before anything else (``claim``, made by link(2)), so that a worker begins
once, however often its job was submitted or requeued; then it runs ``setupCommands``, looks for
Python and becomes the worker.  What goes wrong before that is left in ``failure``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from providers.base import ProviderError
from providers.slurm_options import arguments, value_of
from providers.slurm_query import comment_of
from providers.slurm_time import lead_seconds, seconds_of_limit

PYTHONS = (
    "python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9",
    "/usr/libexec/platform-python",
)  # fmt: skip
"""Where Python 3.9 or newer is looked for on a node."""
_UNSET = (
    "SBATCH_WAIT", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE", "SBATCH_ARRAY_INX", "SBATCH_JOB_NAME",
    "SBATCH_SIGNAL", "SBATCH_OPEN_MODE", "SBATCH_ERROR", "SBATCH_INPUT", "SBATCH_OUTPUT",
    "SBATCH_TEST_ONLY", "SBATCH_CLUSTERS", "SLURM_CLUSTERS", "SBATCH_COMMENT",
)  # fmt: skip
"""Variables of a login session that would change what is submitted."""
_ID = re.compile(r"(\d{1,10})(?:;[^\s;]+)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a swarm's provider block asks of Slurm."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time_limit: str = ""
    gres: str = ""
    options: Sequence[str] = ()
    python: str = ""
    setup: Sequence[str] = ()

    @property
    def partitions(self) -> list[str]:
        """The partitions that count, ``sbatchOptions`` seen to; empty: the default one."""
        chosen = value_of(self.options, "partition", "p") or self.partition
        return [name for name in chosen.split(",") if name]

    @property
    def limit(self) -> str:
        """The time limit that counts."""
        return value_of(self.options, "time", "t") or self.time_limit

    @property
    def charged(self) -> str:
        """The account that counts."""
        return value_of(self.options, "account", "A") or self.account

    @property
    def quality(self) -> str:
        """The qos that counts."""
        return value_of(self.options, "qos", "q") or self.qos


def wanted(parameters: Mapping[str, Any]) -> Wanted:
    """Read a provider block. Raises: ProviderError (``SbatchOptionRefused``)."""
    text = {name: str(parameters.get(name) or "") for name in ("partition", "account", "qos")}
    options = tuple(str(one) for one in parameters.get("sbatchOptions") or ())
    arguments(options)
    return Wanted(
        **text,
        time_limit=str(parameters.get("timeLimit") or ""),
        gres=str(parameters.get("gres") or ""),
        options=options,
        python=str(parameters.get("pythonPath") or ""),
        setup=tuple(str(one) for one in parameters.get("setupCommands") or ()),
    )


@dataclass(frozen=True, slots=True)
class Submission:
    """One worker to submit."""

    uid: str
    """Of the swarm."""
    job: str
    index: int
    token: str
    folder: str
    """The worker's, absolute, where the nodes see it."""
    worker: str
    """The file with the worker's program, absolute."""
    wanted: Wanted
    path: Sequence[str] = field(default=())
    """Folders that come first on the worker's PATH (installed tools)."""
    python: str = ""
    """The Python that has what the worker's runtime needs; empty: any will do."""


def command(one: Submission, max_array: int, default_limit: int | None = None) -> list[str]:
    """``sbatch``'s arguments; the script goes to its standard input.

    Args:
        one: the worker.
        max_array: the cluster's ``MaxArraySize``; 0: it has no arrays.
        default_limit: seconds that the partition gives a job that asks for no limit.
    """
    want = one.wanted
    limit = seconds_of_limit(want.limit) if want.limit else default_limit
    log = f"{one.folder}/worker.log"
    if "\\" in log:
        raise ProviderError("InvalidParameters", "slurm.workspaceRoot must not contain a backslash")
    argv = ["env", *(part for name in _UNSET for part in ("-u", name)), "sbatch", "--parsable"]
    if max_array > 0:
        argv.append(f"--array={one.index % max_array}")
    argv += [
        f"--job-name={one.job}",
        f"--comment={comment_of(one.uid, one.job, one.token)}",
        "--no-requeue",
        f"--signal=B:USR1@{lead_seconds(limit)}",
        f"--chdir={one.folder}",
        f"--output={log.replace('%', '%%')}",
        "--open-mode=append",
    ]
    given = {
        "partition": want.partition,
        "account": want.account,
        "qos": want.qos,
        "time": want.time_limit,
        "gres": want.gres,
    }
    argv += [f"--{name}={value}" for name, value in given.items() if value]
    return [*argv, *arguments(want.options)]


def job_id(out: str) -> int | None:
    """The id that ``sbatch --parsable`` printed; None if it printed something else.

    A site's own filters may print lines before it.
    """
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    found = _ID.match(lines[-1]) if lines else None
    return int(found[1]) if found else None


_SCRIPT = """\
#!{shell}
# A worker of Codeswarm: {job}
umask 077
dir={folder}
fail() {{
  trap - EXIT
  rm -f "$dir/env" "$dir/.env.part"
  text=$(printf '%s' "$2" | tr -d '\\000-\\037' | sed 's/\\\\/\\\\\\\\/g; s/"/\\\\"/g')
  printf '{{"reason":"%s","message":"%s"}}\\n' "$1" "$text" > "$dir/.failure.part" &&
    mv -f "$dir/.failure.part" "$dir/failure"
  exit 1
}}
cd "$dir" || exit 1
# Whoever makes this file is the worker; a second job, or a second run of this one, is not.
# It appears with what is in it; a network file system may say EEXIST of what it did itself.
mine="$dir/.claim.$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.$$"
(set -C; printf '%s %s\\n' "$SLURM_JOB_ID" {token} > "$mine") || exit 1
ln "$mine" "$dir/claim" 2>/dev/null || [ "$dir/claim" -ef "$mine" ] ||
  {{ [ ! -e "$dir/claim" ] && (set -C; cat "$mine" > "$dir/claim") 2>/dev/null; }} ||
  {{ rm -f "$mine"; [ -e "$dir/claim" ]; exit; }}
rm -f "$mine"
CODESWARM_JOB_ID={job} CODESWARM_BASE_DIR=$dir CODESWARM_NODE_ID=${{SLURMD_NODENAME:-$(uname -n)}}
export CODESWARM_JOB_ID CODESWARM_BASE_DIR CODESWARM_NODE_ID
trap 'fail SetupFailed "a setup command ended the script"' EXIT
trap 'fail TimeLimitTooShort {early}' USR1
{setup}trap - EXIT
# Python begins with the signal blocked, and the worker takes it once it can.
hold=
if env --block-signal=USR1 true >/dev/null 2>&1; then hold='env --block-signal=USR1'; fi
{path}for python in {pythons}; do
  if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then
    exec $hold "$python" -I {worker} "$dir"
  fi
done
fail PythonNotFound {missing}
"""
_SETUP = """\
{command}
code=$?
[ "$code" -eq 0 ] || fail SetupFailed "{ordinal} setup command ended with exit status $code on \
$CODESWARM_NODE_ID; what it said is in worker.log"
"""
_EARLY = (
    "the time limit was up before the worker had begun; ask for a longer one (timeLimit; without "
    "it the default of the partition counts)"
)
_ORDINALS = ("the first", "the second", "the third")


def script(one: Submission) -> str:
    """The batch script of a worker.

    ``setupCommands`` are the user's own shell commands and run as they are, in the script's own
    shell, so that they may change its environment; a login shell, since that is where sites
    define ``module``.
    """
    given = one.python or one.wanted.python
    pythons = [given] if given else list(PYTHONS)
    missing = (
        f"{given} ({'tools' if one.python else 'pythonPath'}) is no Python 3.9 or newer here"
        if given
        else "there is no Python 3.9 or newer on this node (tried: " + ", ".join(pythons) + "); "
        "give pythonPath, or setupCommands such as `module load python`"
    )
    folders = "".join(f"{shlex.quote(folder)}:" for folder in one.path)
    return _SCRIPT.format(
        shell="/bin/bash -l" if one.wanted.setup else "/bin/sh",
        job=one.job,
        folder=shlex.quote(one.folder),
        token=shlex.quote(one.token),
        worker=shlex.quote(one.worker),
        pythons=" ".join(shlex.quote(p) for p in pythons),
        missing=shlex.quote(missing),
        early=f'"{_EARLY}"',
        setup="".join(_setup(n, text) for n, text in enumerate(one.wanted.setup)),
        path=f'PATH={folders}"$PATH"; export PATH\n' if folders else "",
    )


def _setup(number: int, text: str) -> str:
    ordinal = _ORDINALS[number] if number < len(_ORDINALS) else f"number {number + 1}"
    return _SETUP.format(command=text, ordinal=ordinal)
