"""The environment that a worker's children begin with."""

from __future__ import annotations

from collections.abc import Mapping

from worker.config import BASE_VARIABLE, JOB_VARIABLE, NODE_VARIABLE, Config

# The user's git variables that stay; the others would tie git to a repository or a config.
_KEPT = frozenset(
    {
        "GIT_ASKPASS", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM",
        "GIT_EXEC_PATH", "GIT_PROXY_COMMAND", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT",
        "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",
    }
)  # fmt: skip


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables that tie git to a repository."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name in _KEPT
    }


def agent_environ(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of an agent's processes.

    Args:
        config: the worker's settings.
        environ: the worker's own environment, with the three ``CODESWARM_`` variables.
    """
    marks = {name: environ[name] for name in (JOB_VARIABLE, NODE_VARIABLE, BASE_VARIABLE)}
    return {**clean_environ(environ), **config.env, **marks}
