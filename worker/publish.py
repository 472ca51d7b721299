"""Putting an attempt's head where it is durable: its own ref first, then the task's branch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import TurnError
from worker.git import Git, display
from worker.locks import lock
from worker.objectstore import Remote
from worker.records import RepositoryRef

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits between tries: a remote that is away for some seconds must not cost a whole turn."""

MAX_LOOSE_REFS = 64
"""More attempts' refs than this in files of their own are packed into one file, by one worker at a
time: every push reads all of them (measured: 130 ms with 4,000 files, 36 ms packed)."""

MAX_SHOWN_REFS = 200
"""With more refs to show to the receiver than this, none is hidden from it: the list is one
argument of a command, and the kernel limits its length (128 KiB)."""

_QUIET_RECEIVER = ("receive.autogc=false", "core.alternateRefsCommand=true")
"""For a repository on this host: its automatic gc after every one of many pushes is left to its
owner's own commands, and its refs are not listed a second time as those of its quarantine's
alternate (together 9 of 31 ms of a push)."""


def push(
    git: Git, repository: RepositoryRef, head: str, remote: Remote, *, hide: bool = True
) -> bool:
    """Push ``head`` to the attempt's ref and, if its lease holds, to the task's branch.

    Args:
        hide: let a repository on this host look only at the refs that this work is made of
            (not for a head that was merged from many others).

    Returns: whether there was anything to push to.

    Raises: TurnError (branch_conflict: the branch is not where it was, the attempt's ref is
        there all the same; infrastructure: anything else, after some tries); Interrupted.
    """
    refs = _refs(repository)
    if not refs:
        return False
    receiver = _receiver(repository, refs, remote.url, hide)
    for wait in (*RETRY_SECONDS, None):
        refused, complaint = _try(git, repository, head, remote, refs=refs, receiver=receiver)
        if refused is None:
            _pack_refs(git, remote.url)
            return True
        if "stale info" in refused.get(_branch_ref(repository), "") and len(refused) == 1:
            branch = repository.get("branch")
            raise TurnError(
                "branch_conflict",
                f"branch {branch} was moved by somebody else and is left alone; "
                f"the work is at {repository.get('attempt_ref', head)}",
            )
        if wait is not None:
            git.scope.sleep(wait)
    raise TurnError("infrastructure", f"cannot push to {remote.url}: {complaint}")


def _refs(repository: RepositoryRef) -> list[str]:
    attempt = repository.get("attempt_ref")
    return [ref for ref in (attempt, _branch_ref(repository)) if ref]


def _branch_ref(repository: RepositoryRef) -> str:
    branch = repository.get("branch")
    return f"refs/heads/{branch}" if branch else ""


def _receiver(repository: RepositoryRef, refs: list[str], url: str, hide: bool) -> list[str]:
    """The option that names the receiving program; nothing for a host elsewhere, which takes no
    options for it.

    The receiver walks all refs that it shows before it takes a push: with 20,000 of them that is
    most of the time (measured: 800 ms, and 220 ms with what is of no concern hidden).
    """
    if not is_local(url):
        return []
    settings = list(_QUIET_RECEIVER)
    base = f"refs/heads/{repository['base_branch']}"
    # What a shared store that is itself the repository knows its commits by.
    known = [repository["base_commit"], *(d["commit"] for d in repository["dependencies"])]
    shown = [base, *refs, *(d["ref"] for d in repository["dependencies"])]
    shown += [f"refs/base/{commit}" for commit in known]
    if hide and len(shown) <= MAX_SHOWN_REFS:
        settings += ["receive.hideRefs=refs/", *(f"receive.hideRefs=!{ref}" for ref in shown)]
    options = [word for setting in settings for word in ("-c", setting)]
    return [f"--receive-pack={shlex.join(['git', *options, 'receive-pack'])}"]


def _try(
    git: Git,
    repository: RepositoryRef,
    head: str,
    remote: Remote,
    *,
    refs: list[str],
    receiver: list[str],
) -> tuple[dict[str, str] | None, str]:
    """One push: None, or what was refused and why; and the reason in words."""
    branch = _branch_ref(repository)
    lease = f"--force-with-lease={branch}:{repository.get('expected', '')}"
    done = git.run(
        *remote.options,
        "push",
        "--porcelain",
        "--no-verify",
        *([lease] if branch else []),
        *receiver,
        "--",
        remote.url,
        *(f"{head}:{ref}" for ref in refs),
        ok=range(256),
        env=remote.env,
    )
    states = parse_porcelain(done.output)
    if done.exit_code == 0 and all(states.get(ref, ("!", ""))[0] != "!" for ref in refs):
        return None, ""
    refused = {ref: said for ref, (flag, said) in states.items() if flag == "!"}
    told = [f"{ref}: {said}" for ref, said in refused.items()]
    complaint = "; ".join(told) or done.errors.strip()[-500:] or f"exit code {done.exit_code}"
    return refused, complaint


def parse_porcelain(output: bytes) -> dict[str, tuple[str, str]]:
    """Each remote ref's flag and summary in the output of ``git push --porcelain``.

    Lines are ``<flag>\\t<from>:<to>\\t<summary> (<reason>)`` (git-push(1), OUTPUT).
    """
    states = {}
    for line in output.split(b"\n"):
        fields = line.split(b"\t")
        if len(fields) == 3 and len(fields[0]) == 1:
            ref = display(fields[1].rpartition(b":")[2])
            states[ref] = (display(fields[0]), display(fields[2]))
    return states


def _pack_refs(git: Git, url: str) -> None:
    """Pack the refs of a repository on this host, if there are many; failing is no harm."""
    if not is_local(url):
        return
    path = Path(url[len("file://") :] if url.startswith("file://") else url)
    for git_dir in (path, path / ".git"):
        if _has_many(git_dir):
            with _alone(git_dir) as alone:
                if alone and _has_many(git_dir):
                    git.with_dir(git_dir).run("pack-refs", "--all", ok=range(256))


def _has_many(git_dir: Path) -> bool:
    try:
        return sum(1 for _ in os.scandir(git_dir / "refs" / "codeswarm")) > MAX_LOOSE_REFS
    except OSError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other worker is at this here; a lock on the folder leaves no file behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            alone = lock(handle, wait=False)
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(handle)


def is_local(url: str) -> bool:
    """Whether a URL names a repository on this host."""
    return url.startswith(("/", "file://"))
