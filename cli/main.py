"""The command ``codeswarm``: its verbs, and how any of them ends."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from cli.errors import EXIT_CODES, INTERRUPTED, UNAVAILABLE, CliError
from cli.lazy import LazyGroup
from cli.session import Session, common_options
from cli.table import clean

SECTIONS = {
    "Objects": {
        "apply": "cli.apply:apply",
        "get": "cli.get:get",
        "describe": "cli.describe:describe",
        "delete": "cli.delete:delete",
        "wait": "cli.wait:wait",
        "explain": "cli.explain:explain",
        "diff": "cli.diff:diff",
        "scale": "cli.change:scale",
    },
    "Work": {
        "prompt": "cli.prompt:prompt",
        "logs": "cli.logs:logs",
        "approvals": "cli.approvals:approvals",
        "approve": "cli.deciding:approve",
        "deny": "cli.deciding:deny",
        "retry": "cli.change:retry",
        "cancel": "cli.change:cancel",
        "suspend": "cli.change:suspend",
        "resume": "cli.change:resume",
        "project": "cli.project:project",
    },
    "Overview": {
        "status": "cli.status:status",
        "top": "cli.top:top",
        "doctor": "cli.doctor:doctor",
        "bench": "cli.bench:bench",
    },
    "Controller": {
        "up": "cli.controller:up",
        "down": "cli.controller:down",
        "stop-all": "cli.controller:stop_all",
        "worker-host": "cli.worker_host:worker_host",
        "controller": "cli.controller_run:controller",
    },
    "Without a file": {
        "launch": "cli.launch:launch",
        "list": "cli.quick:list_swarms",
        "inject": "cli.quick:inject",
        "attach": "cli.quick:attach",
        "terminate": "cli.quick:terminate",
        "providers": "cli.quick:providers",
    },
    "Other": {
        "completion": "cli.completion:completion",
        "version": "cli.version:version",
    },
}

EXAMPLES = """\b
Examples:
  codeswarm apply -f swarm.yaml --wait     declare a swarm and a project, see them through
  codeswarm get swarms,projects,tasks      what there is
  codeswarm explain task/greeter.docs      why a task waits
  codeswarm logs -f project/greeter        what the agents do
  codeswarm prompt builders "Say hello" --follow"""


class Root(LazyGroup):
    """The top level: every error becomes one line and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run and exit; what went wrong is told on stderr without a traceback."""
        kwargs["standalone_mode"] = False
        sys.exit(self._run(*args, **kwargs))

    def _run(self, *args: Any, **kwargs: Any) -> int:
        try:
            result = super().main(*args, **kwargs)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return INTERRUPTED
        except CliError as error:
            click.echo(f"error: {clean(str(error))}", err=True)
            return error.code
        return result if isinstance(result, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; errors of the layers below are put into words for people.

        Raises: CliError; with ``--verbose`` also what is nobody's mistake but ours.
        """
        try:
            return super().invoke(ctx)
        except (CliError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            raise
        except Exception as error:
            if isinstance(ctx.obj, Session) and ctx.obj.verbose:
                raise
            raise _told(error) from error


def _told(error: Exception) -> CliError:
    """Errors of the layers below whose text is fit for people; others are internal."""
    from controller.resources.errors import Invalid
    from controller.store.base import StoreError, StoreUnavailable

    if isinstance(error, StoreUnavailable):
        return CliError(str(error), UNAVAILABLE)
    if isinstance(error, StoreError | Invalid):
        return CliError(str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CliError(f"{where}{error.strerror or error}")
    text = f"{type(error).__name__}: {error}"
    return CliError(f"internal error: {text} (run again with -v for the traceback)")


cli = Root(
    name="codeswarm",
    sections=SECTIONS,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Teams of coding agents as declared resources: a manifest in, merged branches out.\n\n"
    + EXAMPLES,
    epilog=EXIT_CODES,
)


def main() -> NoReturn:
    """Entry point of the program."""
    cli.main(prog_name="codeswarm")


def plugin() -> NoReturn:
    """Entry point of ``kubectl codeswarm``: the current context's cluster is meant."""
    cli.main(prog_name="kubectl codeswarm", obj=Session(cluster=True))


if __name__ == "__main__":
    main()
