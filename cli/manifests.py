"""``-f``: reading manifests for the verbs that take them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.errors import CliError
from cli.session import session

if TYPE_CHECKING:
    from controller.resources.manifest import Document
    from controller.store.base import Key


def file_options(required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``-f`` (several times) and ``-R``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        recursive = click.option(
            "-R", "--recursive", is_flag=True, help="Look into subfolders of -f too."
        )
        files = click.option(
            "-f",
            "--filename",
            "files",
            multiple=True,
            required=required,
            metavar="FILE",
            help='A manifest, a folder of manifests, or "-" for standard input.',
        )
        return files(recursive(function))

    return decorate


def load(files: Sequence[str], recursive: bool) -> list[Document]:
    """The documents of all files.

    Raises: CliError.
    """
    from controller.resources import manifest

    about = session()
    stdin = sys.stdin.buffer if "-" in files else None
    if stdin is not None and sys.stdin.isatty():
        click.echo("reading the manifest from the terminal; Ctrl-D ends it", err=True)
    try:
        documents = manifest.load(files, stdin, recursive, namespace=about.namespace)
    except manifest.ManifestError as error:
        raise CliError(str(error)) from None
    if about.namespace_given:
        for document in documents:
            _check_namespace(document, about.namespace)
    return documents


def _check_namespace(document: Document, namespace: str) -> None:
    metadata = document.obj.get("metadata")
    own = metadata.get("namespace") if isinstance(metadata, dict) else None
    if own and own != namespace:
        raise CliError(
            f'{document.source}: its namespace "{own}" is not the "{namespace}" of --namespace'
        )


def keys_of(documents: Sequence[Document], namespace: str) -> list[Key]:
    """The keys of documents that name known kinds; others are left out."""
    from controller.store.base import Key

    found = []
    for document in documents:
        metadata, kind = document.obj.get("metadata"), document.obj.get("kind")
        if isinstance(metadata, dict) and isinstance(kind, str):
            name = metadata.get("name")
            space = metadata.get("namespace") or namespace
            if isinstance(name, str) and name and isinstance(space, str):
                found.append(Key(kind, space, name))
    return found
