"""What one invocation knows: home or cluster, namespace, verbosity; and the client made from it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cli.client import Client
    from cli.kube_config import Place
    from controller.runtime.home import Home


CONTEXT_VARIABLE = "CODESWARM_CONTEXT"
_NAMESPACE = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@dataclass(slots=True)
class Session:
    """Filled by the options that every verb takes; lives in click's root context."""

    cluster: bool = False
    """Whether a cluster is meant without being named: the program is kubectl's plugin."""
    home_path: str | None = None
    kubeconfig: str | None = None
    verbose: bool = False
    _namespace: str | None = None
    _context: str | None = None
    _place: Place | None = None
    _client: Client | None = None
    _closing: bool = field(default=False, repr=False)

    @property
    def namespace(self) -> str:
        """The namespace of what is named: that of ``-n``, else of the context, else default."""
        if self._namespace is not None:
            return self._namespace
        return self.place.namespace if self.in_cluster else "default"

    @namespace.setter
    def namespace(self, value: str) -> None:
        self._namespace = value

    @property
    def namespace_given(self) -> bool:
        """Whether ``-n`` was given."""
        return self._namespace is not None

    @property
    def context(self) -> str | None:
        """The context that was named; None: the file home, or the current context."""
        if self._context is None and self.home_path is None:
            return os.environ.get(CONTEXT_VARIABLE) or None
        return self._context or None

    @context.setter
    def context(self, value: str) -> None:
        self._context = value

    @property
    def in_cluster(self) -> bool:
        """Whether the objects are in a Kubernetes cluster."""
        return self.cluster or self.kubeconfig is not None or self.context is not None

    @property
    def place(self) -> Place:
        """The cluster: a context of a kubeconfig.

        Raises: CliError.
        """
        if self._place is None:
            from cli.errors import USAGE, CliError
            from cli.kube_config import place

            if self.home_path is not None:
                raise CliError("--home names a file home; it does not go with a cluster", USAGE)
            self._place = place(self.kubeconfig, self.context)
        return self._place

    @property
    def home(self) -> Home:
        """The file home."""
        from controller.runtime.home import Home

        return Home.at(self.home_path) if self.home_path else Home.from_env()

    @property
    def client(self) -> Client:
        """The way to the objects, opened at first use."""
        if self._client is None:
            self._client = self._open()
        return self._client

    def _open(self) -> Client:
        if self.in_cluster:
            from cli.kube_client import KubeClient

            return KubeClient(self.place, self.namespace)
        from cli.file_client import FileClient

        command = getattr(click.get_current_context(silent=True), "command", None)
        return FileClient(self.home, make=getattr(command, "makes_home", False))

    def close_with(self, ctx: click.Context) -> None:
        """Close when the context ends what was opened."""
        if not self._closing:
            self._closing = True
            ctx.call_on_close(self.close)

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
    root.obj.close_with(root)
    return root.obj


def _namespace(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not _NAMESPACE.match(value):
        raise click.BadParameter(
            'lower-case letters, digits and "-", at most 63, as in "team-a"', ctx=ctx, param=param
        )
    session().namespace = value


def _home(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        session().home_path = value


def _context(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        session().context = value


def _kubeconfig(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        session().kubeconfig = value


def _verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        session().verbose = True


def common_options() -> list[click.Parameter]:
    """``-n``, ``--home``, ``--context``, ``--kubeconfig`` and ``-v``: before or after the verb."""
    return [
        click.Option(
            ["-n", "--namespace"],
            metavar="NAME",
            expose_value=False,
            callback=_namespace,
            help="Namespace of the objects.  [default: the context's, else default]",
        ),
        click.Option(
            ["--home"],
            metavar="DIR",
            expose_value=False,
            callback=_home,
            help="State directory.  [default: $CODESWARM_HOME or ~/.codeswarm]",
        ),
        click.Option(
            ["--context"],
            metavar="NAME",
            expose_value=False,
            callback=_context,
            help="Work on the Kubernetes cluster of this context.  [default: $CODESWARM_CONTEXT]",
        ),
        click.Option(
            ["--kubeconfig"],
            metavar="FILE",
            expose_value=False,
            callback=_kubeconfig,
            help="Work on the Kubernetes cluster of this file.  [default: $KUBECONFIG]",
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
    """A command that takes the common options too.

    With ``makes_home`` it begins a file home that is not there yet; others only look for one.
    """

    def __init__(self, *args: Any, makes_home: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.makes_home = makes_home
        self.params.extend(common_options())


def verb(name: str, **attrs: Any) -> Callable[[Callable[..., Any]], Verb]:
    """``@click.command`` for a ``Verb``."""
    return click.command(name, cls=Verb, **attrs)
