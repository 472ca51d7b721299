"""``codeswarm completion``: scripts that complete words in a shell."""

from __future__ import annotations

import click

from cli.session import verb


@verb("completion", no_args_is_help=True)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      source <(codeswarm completion bash)
      codeswarm completion zsh > "${fpath[1]}/_codeswarm"
      codeswarm completion fish > ~/.config/fish/completions/codeswarm.fish
    """
    from click.shell_completion import get_completion_class

    from cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise AssertionError(f"click knows no {shell}")
    click.echo(found(cli, {}, "codeswarm", "_CODESWARM_COMPLETE").source())
