"""The mailbox's records: the one vocabulary between controller and worker.

Files are append-only JSON Lines in UTF-8, one record a line.

Inbox (controller to worker)
    ``{"type": "user", "epoch", "injection_id", "content", "task", "repository"?, "integration"?,
    "deltas"?}`` starts a turn; ``{"type": "control", "epoch", "payload": {...}}`` steers it.
Outbox (worker to controller)
    ``{"seq", "ts", "job_id", "node_id", "injection_id", "event", "data"}``.

Standard library only: this package is shipped to nodes as one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing import NotRequired  # novermin: Python 3.11; nodes may have 3.9

# --- inbox -----------------------------------------------------------------------------------


class DependencyRef(TypedDict):
    """A finished task whose head the attempt starts from."""

    task: str  # name within the project
    commit: str  # full hash
    ref: str  # full ref at the remote that holds it, e.g. refs/codeswarm/<uid>/<attempt>


class RepositoryRef(TypedDict):
    """Where an attempt works and what it may push (DESIGN section 5)."""

    url: str  # as git takes it; never with credentials in it
    project_uid: str  # names the shared object store
    store: NotRequired[str]  # absolute path of the shared object store on the worker's host
    base_branch: str
    base_commit: str
    dependencies: list[DependencyRef]
    previous: NotRequired[DependencyRef]  # an earlier attempt's work: to be at hand, not merged
    attempt_ref: NotRequired[str]  # refs/codeswarm/<task-uid>/<attempt>; absent: nothing is pushed
    branch: NotRequired[str]  # codeswarm/<project>/<task>, without refs/heads/
    expected: NotRequired[str]  # the branch's value at the attempt's start, "" when absent


class MergeRef(TypedDict):
    """One head to be integrated, in dependency order."""

    task: str
    commit: str
    ref: str


class IntegrationWork(TypedDict):
    """What an integration attempt does before (and maybe without) asking an agent."""

    merges: list[MergeRef]
    verify: list[str] | None  # shell commands; None: the agent finds the verification; []: none


class TaskRef(TypedDict):
    """Which task a prompt belongs to."""

    name: str  # the Task object's name
    uid: str
    kind: str  # work | plan | integration | prompt
    attempt: int  # counts from 1
    project: NotRequired[str]
    task_id: NotRequired[str]  # the planner's word-for-word id, else the name within the project
    title: NotRequired[str]


class UserRecord(TypedDict):
    """Starts a turn."""

    type: Literal["user"]
    epoch: int  # the controller's incarnation; lower than one seen before: ignored
    injection_id: str  # accepted once
    content: str  # the whole prompt
    task: TaskRef
    repository: NotRequired[RepositoryRef]
    integration: NotRequired[IntegrationWork]
    secrets: NotRequired[str]  # file name under <base>/secrets/, removed once read


class ControlPayload(TypedDict):
    """``action``: interrupt | drain | shutdown | approval | steer."""

    action: str
    injection_id: NotRequired[str]  # interrupt, steer: only if this is the running turn
    reason: NotRequired[str]  # interrupt: Timeout, Stalled, ...; approval: the person's
    request_id: NotRequired[str]  # approval
    decision: NotRequired[str]  # approval: one of those offered
    by: NotRequired[str]  # approval: who decided
    content: NotRequired[str]  # steer


class ControlRecord(TypedDict):
    """Acts on the worker or its running turn."""

    type: Literal["control"]
    epoch: int
    payload: ControlPayload


# --- outbox ----------------------------------------------------------------------------------

THREAD_STATUS = "thread_status"
"""``{status: starting|idle|active|waiting_approval|draining|stopped, reason?, pid?}``;
``idle`` after the start (and the system prompt's turn) means: ready for prompts; ``draining`` with
a reason (TimeLimit, SpotInterruption, Stopped): it was told so from outside, and takes no more
of them."""
TURN_STARTED = "turn_started"
"""``{attempt}``: the injection is accepted; it will never start a second time."""
TASK_STARTED = "task_started"
"""``{base_commit?, conflicts?}``: the checkout is ready, the agent's turn begins."""
ASSISTANT_DELTA = "assistant_delta"  # {item, text}
ASSISTANT = "assistant"  # {item, text}
REASONING_DELTA = "reasoning_delta"  # {item, text}
REASONING = "reasoning"  # {item, text}
COMMAND_STARTED = "command_started"
"""``{item, command, source: agent|merge|verify, task?}``"""
COMMAND_COMPLETED = "command_completed"
"""``{item, command, source, exit_code, output (last 8 KiB), seconds, task?, commit?,
state?: merged|conflict|resolved|already}`` (the last three for source merge)"""
FILECHANGE_STARTED = "filechange_started"  # {item, path, kind: add|update|delete}
FILECHANGE_COMPLETED = "filechange_completed"  # {item, path, kind, status}
EXEC_APPROVAL_REQUIRED = "exec_approval_required"
"""``{request_id, kind: command|file-change|tool, decisions: [approve|approve-session|
approve-always|deny|cancel], cwd, command?, tool?, arguments_digest? (SHA-256, hex), reason?, diff?,
paths?, amendments? (what approve-always would allow)}``"""
EXEC_APPROVAL_RESOLVED = "exec_approval_resolved"  # {request_id, decision, by?}
USAGE = "usage"
"""``{session, model, total: Tokens, last: Tokens, context_window?}``: ``total`` counts from the
beginning of this attempt within this agent session and only grows."""
TASK_COMPLETE = "task_complete"
"""What git says of a finished attempt: ``{base_commit, head_commit, attempt_ref?, branch?, pushed,
files_changed (first 200), files_changed_count, merges?: [{task, commit, state}]}``"""
TURN_COMPLETE = "turn_complete"
"""``{status: completed|failed|interrupted, answer (the final assistant text, at most 64 KiB),
error?: {class: task|infrastructure|out_of_memory|quota|overloaded|auth|branch_conflict|
interrupted, message, retry_after_seconds?}, reason?}``: always the last record of an injection.
An interrupted one has the ``reason`` of whoever asked for it; after those of leaving a
``task_complete`` before it says where the unfinished work was pushed."""
AGENT_ERROR = "agent_error"  # {class, message, will_retry, reason?}
SESSION_TRACE = "session_trace"
"""``{direction: "->" (to the agent)|"<-", text (at most 64 KiB characters), cut?: characters left
out}``: raw traffic, only with ``CODESWARM_CAPTURE_ALL_SESSION=1``, credentials masked."""

EVENTS = frozenset(
    {
        THREAD_STATUS, TURN_STARTED, TASK_STARTED, ASSISTANT_DELTA, ASSISTANT, REASONING_DELTA,
        REASONING, COMMAND_STARTED, COMMAND_COMPLETED, FILECHANGE_STARTED, FILECHANGE_COMPLETED,
        EXEC_APPROVAL_REQUIRED, EXEC_APPROVAL_RESOLVED, USAGE, TASK_COMPLETE, TURN_COMPLETE,
        AGENT_ERROR, SESSION_TRACE,
    }
)  # fmt: skip


class Tokens(TypedDict, total=False):
    """Token counts of one step or a sum of steps."""

    total: int
    input: int  # cached input included
    cached_input: int
    cache_write: int
    output: int  # reasoning included
    reasoning_output: int


class OutboxRecord(TypedDict):
    """The envelope of every outbox record."""

    seq: int  # rises by one within an outbox
    ts: float  # seconds since the epoch, the worker's clock
    job_id: str
    node_id: str
    injection_id: str | None
    event: str
    data: dict[str, Any]
