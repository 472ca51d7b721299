"""Imports claude-agent-sdk, without the ``mcp`` package where that can be left out.

The SDK needs ``mcp`` only for tool servers that are written in Python, of which we have none.
Building its hundreds of pydantic models takes three quarters of the import's CPU time (0.65 of
0.85 s) and 45 MB of memory in every worker.
"""

from __future__ import annotations

import importlib
import sys
import types

from worker.log import complain

SDK = "claude_agent_sdk"
LEFT_OUT = "mcp"
_PARTS = ("types", "server", "shared", "shared.memory", "shared.message")


class _Anything:
    """Stands for any class of what is left out; may be derived from."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__()


class _Hollow(types.ModuleType):
    """A module that has every name that is asked for."""

    __path__: list[str] = []  # noqa: RUF012 - as the import system wants it

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Anything,), {})


def load() -> None:
    """Import the SDK; a version that does not do without ``mcp`` gets it.

    Raises: ImportError.
    """
    if SDK in sys.modules or LEFT_OUT in sys.modules or not _without():
        importlib.import_module(SDK)


def _without() -> bool:
    """Import it with hollow modules for what is left out; whether that went well."""
    hollow = {LEFT_OUT: _Hollow(LEFT_OUT)}
    for part in _PARTS:
        parent, _, name = f"{LEFT_OUT}.{part}".rpartition(".")
        hollow[f"{parent}.{name}"] = module = _Hollow(f"{parent}.{name}")
        setattr(hollow[parent], name, module)
    sys.modules.update(hollow)
    try:
        importlib.import_module(SDK)
    except Exception as error:  # whatever it makes of them
        complain(f"claude: {SDK} is loaded with {LEFT_OUT}: {type(error).__name__}: {error}")
        _forget(SDK)
        return False
    finally:
        _forget(LEFT_OUT)
    return True


def _forget(package: str) -> None:
    for name in list(sys.modules):
        if name == package or name.startswith(f"{package}."):
            del sys.modules[name]
