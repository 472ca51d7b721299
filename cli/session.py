"""What one invocation knows: namespace, home, verbosity; and the client made from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cli.client import Client
    from controller.runtime.home import Home


_NAMESPACE = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@dataclass(slots=True)
class Session:
    """Filled by the options that every verb takes; lives in click's root context."""

    namespace: str = "default"
    namespace_given: bool = False
    home_path: str | None = None
    verbose: bool = False
    _client: Client | None = None

    @property
    def home(self) -> Home:
        """The file home."""
        from controller.runtime.home import Home

        return Home.at(self.home_path) if self.home_path else Home.from_env()

    @property
    def client(self) -> Client:
        """The way to the objects, opened at first use."""
        if self._client is None:
            from cli.file_client import FileClient

            self._client = FileClient(self.home)
        return self._client

    def close(self) -> None:
        """Close what was opened."""
        if self._client is not None:
            self._client.close()
            self._client = None


def session() -> Session:
    """The session of the running command."""
    root = click.get_current_context().find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
        root.call_on_close(root.obj.close)
    return root.obj


def _namespace(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not _NAMESPACE.match(value):
        raise click.BadParameter(
            'lower-case letters, digits and "-", at most 63, as in "team-a"', ctx=ctx, param=param
        )
    found = session()
    found.namespace, found.namespace_given = value, True


def _home(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        session().home_path = value


def _verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        session().verbose = True


def common_options() -> list[click.Parameter]:
    """``-n``, ``--home`` and ``-v``, which stand before or after the verb."""
    return [
        click.Option(
            ["-n", "--namespace"],
            metavar="NAME",
            expose_value=False,
            callback=_namespace,
            help="Namespace of the objects.  [default: default]",
        ),
        click.Option(
            ["--home"],
            metavar="DIR",
            expose_value=False,
            callback=_home,
            help="State directory.  [default: $CODESWARM_HOME or ~/.codeswarm]",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_verbose,
            help="Show tracebacks of internal errors.",
        ),
    ]


class Verb(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())


def verb(name: str, **attrs: Any) -> Callable[[Callable[..., Any]], Verb]:
    """``@click.command`` for a ``Verb``."""
    return click.command(name, cls=Verb, **attrs)
