"""Kubeconfig files: which context is meant, and the namespace that it names.

Only that much is read here, so that a mistake is told before the client library is loaded; the
library reads the files itself for server and credentials.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import UNAVAILABLE, CliError, suggestion

VARIABLE = "KUBECONFIG"
DEFAULT = "~/.kube/config"


@dataclass(frozen=True, slots=True)
class Place:
    """A context of a kubeconfig."""

    files: str
    """Paths as ``KUBECONFIG`` has them, with colons between several."""
    context: str
    namespace: str
    """That of the context; ``default`` where it names none."""
    user: str = ""
    """What the context calls its user."""


def place(kubeconfig: str | None, context: str | None) -> Place:
    """The context that is meant.

    Args:
        kubeconfig: one file; None: ``$KUBECONFIG``, else the usual one.
        context: None: the current one.

    Raises: CliError.
    """
    files = kubeconfig or os.environ.get(VARIABLE) or DEFAULT
    if kubeconfig is not None and not Path(kubeconfig).expanduser().is_file():
        raise CliError(f"--kubeconfig {kubeconfig}: there is no such file")
    documents = list(_documents(files))
    if not documents:
        raise CliError(
            f"there is no kubeconfig ({files}): name one with --kubeconfig or {VARIABLE}",
            UNAVAILABLE,
        )
    contexts = _contexts(documents)
    chosen = context or _current(documents)
    if not chosen:
        raise CliError(
            f"{files} has no current context: name one with --context ({_known(contexts)})"
        )
    if chosen not in contexts:
        hint = suggestion(chosen, contexts) or f" ({_known(contexts)})"
        raise CliError(f'there is no context "{chosen}" in {files}{hint}')
    namespace = contexts[chosen].get("namespace")
    named = isinstance(namespace, str) and namespace
    user = contexts[chosen].get("user")
    return Place(
        files,
        chosen,
        str(namespace) if named else "default",
        user if isinstance(user, str) else "",
    )


def _documents(files: str) -> Iterator[dict[str, Any]]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for part in files.split(os.pathsep):
        path = Path(part).expanduser()
        if not part or not path.exists():
            continue  # as kubectl does with a missing file of several
        try:
            found = yaml.load(path.read_bytes(), Loader=loader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not YAML"
            raise CliError(f"{path} cannot be read: {reason}") from None
        if isinstance(found, dict):
            yield found


def _contexts(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Contexts by name; of several with one name the first counts."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        entries = document.get("contexts")
        for entry in entries if isinstance(entries, list) else ():
            name = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(name, str):
                inner = entry.get("context")
                found.setdefault(name, inner if isinstance(inner, dict) else {})
    return found


def _current(documents: list[dict[str, Any]]) -> str:
    named = (document.get("current-context") for document in documents)
    return next((name for name in named if isinstance(name, str) and name), "")


def _known(contexts: dict[str, dict[str, Any]]) -> str:
    return "there are: " + ", ".join(sorted(contexts)) if contexts else "there is none"
