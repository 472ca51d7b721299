"""Leaving a record in a worker's inbox, with the secrets that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker import paths
from worker.failures import ProviderError
from worker.mailbox import append_line
from worker.paths import component, inbox_name, write_private


def post(
    root: Path,
    folder: tuple[str, ...],
    index: int,
    record: Mapping[str, Any],
    secrets: Mapping[str, str] | None = None,
    *,
    durable: bool = False,
) -> Path:
    """Append one record to a job's inbox; safe to repeat, since the worker knows its ids.

    ``secrets`` are in place, under the name that the record's ``secrets`` says (else
    ``<injection_id>.json``), before the record is.

    Args:
        root: below which all is.
        folder: components of the job's folder below the root; the last one is the job.
        index: of the worker.
        record: an inbox record.
        secrets: for a file of mode 0600.
        durable: wait until the record is on disk.

    Returns: the folder of the inbox.

    Raises: ProviderError (``WorkerGone``, ``UnsafePath``, ``RecordTooLarge``, ``DeliveryFailed``).
    """
    job = folder[-1]
    inbox = paths.existing(root, *folder, "mailbox", "inbox")
    if inbox is None:
        raise ProviderError("WorkerGone", f"worker {job} is gone, its folder with it")
    try:
        if secrets:
            record = _leave_secrets(root, folder, record, secrets)
        line = json.dumps(record, separators=(",", ":")).encode()
        append_line(inbox / inbox_name(job, index), line, durable=durable)
    except ValueError as error:
        raise ProviderError("RecordTooLarge", f"for worker {job}: {error}") from error
    except OSError as error:
        raise ProviderError(
            "DeliveryFailed",
            f"worker {job} cannot be written to: {error.strerror or error}",
        ) from error
    return inbox


def _leave_secrets(
    root: Path, folder: tuple[str, ...], record: Mapping[str, Any], secrets: Mapping[str, str]
) -> dict[str, Any]:
    name = component(str(record.get("secrets") or f"{record['injection_id']}.json"))
    place = paths.make(root, *folder, "secrets")
    write_private(place / name, json.dumps(dict(secrets)).encode())
    return {**record, "secrets": name}
