"""How Slurm is asked about jobs, partitions and itself, and what its answers say.

A format of our own rather than ``--json``: that of 22.05 knows no filter and returns the jobs of
everybody, and its shape changes between versions.  Names and comments stand last in a line,
since they may hold anything; a line that cannot be ours is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from providers.slurm_state import Standing, standing, words
from providers.slurm_time import seconds_of_limit

MARK = "codeswarm"
"""What the comment of every job of ours begins with."""
_FIELDS = ("%A", "%F", "%K", "%V", "%C", "%m", "%D", "%b", "%P", "%T", "%r", "%N", "%j", "%k")
_COMMENT = re.compile(
    rf"{MARK}:(?P<uid>[A-Za-z0-9-]{{1,64}}):(?P<job>[A-Za-z0-9][A-Za-z0-9._-]{{0,254}})"
    r":(?P<token>[0-9a-f]{1,32})\Z"
)
_MAX_ID = 2**32
_UNSET = (
    "SQUEUE_ACCOUNT", "SQUEUE_LICENSES", "SQUEUE_NAMES", "SQUEUE_PARTITION", "SQUEUE_QOS",
    "SQUEUE_SORT", "SQUEUE_ALL", "SQUEUE_FORMAT", "SQUEUE_FORMAT2", "SQUEUE_STATES",
    "SACCT_FEDERATION", "SLURM_JOB_ID",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Queued:
    """One of Slurm's jobs that carries a comment of ours."""

    id: int
    uid: str
    """Of the swarm."""
    job: str
    token: str
    """Of the submission: what tells two jobs of one worker apart, when ids are given out twice."""
    standing: Standing
    array: str = ""
    """``<array job id>_<index>``: what an administrator knows it by."""
    submitted: float = 0.0
    """Slurm's clock, seconds since the epoch."""
    cpus: int = 0
    memory_mb: float = 0.0
    """As asked for per node; 0 where the cluster does not count memory."""
    nodes: int = 1
    gres: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Generic resources on each node, such as ``{"gpu": 1}``."""
    partition: str = ""
    node: str = ""

    @property
    def handle(self) -> str:
        """What to look for in squeue."""
        return f"job {self.array or self.id}"


def comment_of(uid: str, job: str, token: str) -> str:
    """The comment of a submission."""
    return f"{MARK}:{uid}:{job}:{token}"


def _ask(*argv: str) -> list[str]:
    unset = [part for name in _UNSET for part in ("-u", name)]
    return ["env", *unset, "SLURM_TIME_FORMAT=%s", *argv]


def queue_command(user: str) -> list[str]:
    """``squeue`` for all of a user's (an id's) jobs that slurmctld remembers, ended ones too."""
    return _ask("squeue", "-h", "-r", "-t", "all", "-u", user, "-o", "|".join(_FIELDS))


def parse_queue(text: str) -> list[Queued]:
    """What ``queue_command`` printed, less what is not ours."""
    found = (_queued(line) for line in text.split("\n"))
    return [one for one in found if one is not None]


def _queued(line: str) -> Queued | None:
    parts = line.split("|")
    if len(parts) != len(_FIELDS):
        return None
    number, master, index, at, cpus, memory, nodes, tres, *others = parts
    partition, state, why, node, name, note = others
    ours = _COMMENT.match(note.strip())
    id = _number(number)
    if ours is None or ours["job"] != name.strip() or id is None:
        return None
    if "FAILED" in words(state) and not node.strip():
        return None  # sbatch was refused it: slurmctld remembers that as a job that failed
    return Queued(
        id=id,
        uid=ours["uid"],
        job=ours["job"],
        token=ours["token"],
        standing=standing(state, why),
        array=f"{master}_{index}" if _number(master) and _number(index) is not None else "",
        submitted=float(_number(at) or 0),
        cpus=_number(cpus) or 0,
        memory_mb=megabytes(memory),
        nodes=_number(nodes.partition("-")[0]) or 1,
        gres=parse_gres(tres),
        partition=partition,
        node=node,
    )


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


_UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}


def megabytes(text: str) -> float:
    """A size as Slurm prints it (``4G``, ``500M``, ``1000``: MiB); 0 if it says nothing."""
    found = re.match(r"(\d{1,12}(?:\.\d{1,6})?)([KMGTP]?)[cn]?\Z", text.strip(), re.ASCII)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


_GRES = re.compile(r"(?:gres[:/])?(?P<name>[A-Za-z_]\w*)(?::(?P<type>[A-Za-z_][\w.-]*))?"
                   r"(?::(?P<count>\d{1,9}))?(?:\(.*\))?\Z", re.ASCII)  # fmt: skip


def parse_gres(text: str) -> dict[str, int]:
    """Generic resources as squeue (``%b``) and sinfo (``%G``) print them, by name, and by type too.

    ``gpu:a100:2(S:0-1)`` is ``{"gpu": 2, "gpu:a100": 2}``.  What cannot be read is left out.
    """
    found: dict[str, int] = {}
    for item in re.split(r",(?![^(]*\))", text.strip()):
        match = _GRES.match(item)
        if match is None or item == "N/A":
            continue
        count = int(match["count"] or 1)
        names = [match["name"], *([f"{match['name']}:{match['type']}"] if match["type"] else [])]
        for name in names:
            found[name] = found.get(name, 0) + count
    return found


# --- accounting --------------------------------------------------------------------------------


def accounting_command(ids: Collection[int]) -> list[str]:
    """``sacct`` for jobs that slurmctld has forgotten; only where there is accounting."""
    listed = ",".join(str(id) for id in sorted(ids))
    return _ask(
        "sacct", "-n", "-P", "-X", "-D", "-j", listed, "-o", "JobIDRaw,State,ExitCode,JobName"
    )


def parse_accounting(text: str, names: Mapping[int, str]) -> dict[int, Standing]:
    """How jobs ended, by id; of an id that was given out twice the one of that name.

    As slurmdbd 22.05.8 tells it: ``17|CANCELLED by 0|0:0|<name>``.

    Args:
        text: what ``accounting_command`` printed.
        names: the name that each id must have.
    """
    found: dict[int, Standing] = {}
    for line in text.split("\n"):
        number, _, rest = line.partition("|")
        state, _, rest = rest.partition("|")
        name = rest.partition("|")[2]
        id = _number(number)
        if id is not None and state and names.get(id) == name:
            found[id] = standing(state)
    return found


# --- the cluster -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What the configuration of a cluster says of itself."""

    version: str = ""
    max_array: int = 1001
    """``MaxArraySize``: indices of job arrays are below it; 0: there are none."""
    whole_nodes: bool = False
    """Every job gets whole nodes (``select/linear``)."""
    counts_memory: bool = False
    accounting: bool = False


def config_command() -> list[str]:
    """How a cluster is asked for its configuration."""
    return _ask("scontrol", "show", "config")


def parse_config(text: str) -> ClusterFacts:
    """What ``config_command`` printed."""
    told = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            told[name.strip()] = value.strip()
    storage = told.get("AccountingStorageType", "")
    array = _number(told.get("MaxArraySize", ""))
    return ClusterFacts(
        version=told.get("SLURM_VERSION", ""),
        max_array=1001 if array is None else array,
        whole_nodes=told.get("SelectType", "").endswith("/linear"),
        counts_memory="MEMORY" in told.get("SelectTypeParameters", "").upper(),
        accounting=storage.endswith("/slurmdbd"),
    )


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as ``scontrol show partition -o`` describes it."""

    name: str
    state: str = "UP"
    default: bool = False
    max_time: int | None = None
    """Seconds; None: no limit."""
    default_time: int | None = None
    accounts: frozenset[str] | None = None
    """Those that are let in; None: all."""
    denied_accounts: frozenset[str] = frozenset()
    qos: frozenset[str] | None = None
    denied_qos: frozenset[str] = frozenset()
    shared: bool = False
    """Several jobs may have the same processors (``OverSubscribe=FORCE``, ``YES``)."""
    exclusive: bool = False


def partitions_command() -> list[str]:
    """How a cluster is asked for its partitions (those that our user may see)."""
    return _ask("scontrol", "show", "partition", "-o")


def parse_partitions(text: str) -> dict[str, Partition]:
    """What ``partitions_command`` printed, by name."""
    found = {}
    for line in text.split("\n"):
        told = dict(part.split("=", 1) for part in line.split() if "=" in part)
        name = told.get("PartitionName")
        if name:
            found[name] = _partition(name, told)
    return found


def _partition(name: str, told: Mapping[str, str]) -> Partition:
    sharing = told.get("OverSubscribe", "NO").upper()
    return Partition(
        name=name,
        state=told.get("State", "UP").upper(),
        default=told.get("Default", "NO").upper() == "YES",
        max_time=seconds_of_limit(told.get("MaxTime", "")),
        default_time=seconds_of_limit(told.get("DefaultTime", "")),
        accounts=_listed(told.get("AllowAccounts", "ALL")),
        denied_accounts=_listed(told.get("DenyAccounts", "")) or frozenset(),
        qos=_listed(told.get("AllowQos", "ALL")),
        denied_qos=_listed(told.get("DenyQos", "")) or frozenset(),
        shared=sharing.startswith(("FORCE", "YES")),
        exclusive=sharing.startswith("EXCLUSIVE"),
    )


def _listed(text: str) -> frozenset[str] | None:
    if text.upper() in ("ALL", "(NULL)", ""):
        return None
    return frozenset(text.split(","))


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a partition."""

    name: str
    cpus: int
    memory_mb: float
    gres: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Generic resources, such as ``{"gpu": 4, "gpu:a100": 4}``."""


def nodes_command(partitions: str) -> list[str]:
    """How a cluster is asked for the nodes of partitions (names with commas between)."""
    return _ask("sinfo", "-h", "-N", "-p", partitions, "-o", "%N|%c|%m|%G")


def parse_nodes(text: str) -> list[Node]:
    """What ``nodes_command`` printed; a node of several partitions once."""
    found: dict[str, Node] = {}
    for line in text.split("\n"):
        parts = line.split("|")
        if len(parts) == 4 and _number(parts[1]) is not None:
            gres = parse_gres(parts[3])
            found[parts[0]] = Node(parts[0], _number(parts[1]) or 0, megabytes(parts[2]), gres)
    return list(found.values())


def room(
    nodes: Sequence[Node], facts: ClusterFacts, partitions: Iterable[Partition], like: Queued
) -> int | None:
    """How many jobs like one there is room for at the most, with nobody else on the nodes.

    None: more than can be said.  Never too few: what is not known counts as room.
    """
    there = list(partitions)
    if not nodes or like.nodes > 1 or any(one.shared for one in there):
        return None
    whole = facts.whole_nodes or (bool(there) and all(one.exclusive for one in there))
    cpus, memory = max(like.cpus, 1), like.memory_mb if facts.counts_memory else 0.0
    counted = {name for node in nodes for name in node.gres}
    gres = {name: count for name, count in like.gres.items() if name in counted and count > 0}
    return sum(_fits(node, cpus, memory, gres, whole) for node in nodes)


def _fits(node: Node, cpus: int, memory: float, gres: Mapping[str, int], whole: bool) -> int:
    fit = node.cpus // cpus
    for name, count in gres.items():
        fit = min(fit, node.gres.get(name, 0) // count)
    if memory > 0:
        fit = min(fit, int(node.memory_mb // memory))
    return min(fit, 1) if whole else fit
