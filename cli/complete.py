"""What a shell's completion offers for kinds and names: it never fails and makes no home."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cli.selectors import NAMED, is_kind
from controller.resources import kinds as registry

if TYPE_CHECKING:
    import click

    from cli.session import Session

Complete = Callable[["click.Context", "click.Parameter", str], list[str]]


def objects(*among: str, kinds: bool = True) -> Complete:
    """Completion of ``NAME``, ``KIND/NAME`` and ``KIND NAME``.

    Args:
        among: kinds whose names may stand alone.
        kinds: whether a kind may be named; else there are names only.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            given = ctx.params.get(param.name or "") or ()
            return [word for word in _words(ctx, given, incomplete) if word.startswith(incomplete)]
        except Exception:  # a shell's line is no place for an error
            return []

    def _words(ctx: click.Context, given: tuple[str, ...], incomplete: str) -> list[str]:
        first, slash, _ = incomplete.partition("/")
        if slash:
            return [f"{first}/{name}" for name in _names(ctx, first)] if kinds else []
        if kinds and given and isinstance(given, tuple) and is_kind(given[0]):
            return _names(ctx, given[0])
        if kinds and given and isinstance(given, tuple) and "/" in given[0]:
            return []
        names = [name for kind in among for name in _names(ctx, kind)]
        return names + ([kind.singular for kind in registry.kinds()] if kinds else [])

    return complete


def _names(ctx: click.Context, kind: str) -> list[str]:
    from cli.session import Session

    about: Session = ctx.find_root().obj or Session()
    try:
        found = about.client.list(registry.resolve(kind).kind, about.namespace)
        return [obj["metadata"]["name"] for obj in found]
    finally:
        about.close()


def open_approvals(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completion of the names of questions that nobody has answered."""
    from cli.session import Session

    about: Session = ctx.find_root().obj or Session()
    try:
        given = set(ctx.params.get(param.name or "") or ())
        found = [
            obj["metadata"]["name"]
            for obj in about.client.list("Approval", about.namespace)
            if not obj["spec"].get("decision") and "outcome" not in (obj.get("status") or {})
        ]
        return [name for name in found if name.startswith(incomplete) and name not in given]
    except Exception:  # a shell's line is no place for an error
        return []
    finally:
        about.close()


any_object = objects(*NAMED)
a_task = objects("Task")
a_swarm = objects("Swarm", kinds=False)
a_project = objects("Project", kinds=False)
only_kinds = objects()
