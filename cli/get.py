"""``codeswarm get``: lists of objects, once or as they change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import complete, printing, table
from cli.errors import CliError
from cli.printing import Output, Rows
from cli.query import Group, Query
from cli.selectors import Selection, label_predicate, parse
from cli.session import session, verb

if TYPE_CHECKING:
    from controller.store.base import Resource


@verb("get", no_args_is_help=True)
@click.argument(
    "what",
    nargs=-1,
    required=True,
    metavar="KIND[,KIND...] [NAME...] | KIND/NAME...",
    shell_complete=complete.only_kinds,
)
@click.option(
    "-o",
    "--output",
    default="table",
    metavar="FORMAT",
    help="table, wide, json, yaml, name or jsonpath=TEMPLATE.",
)
@click.option("-w", "--watch", is_flag=True, help="Go on and print what changes.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option("-l", "--selector", metavar="LABELS", help="Only with these labels: a=b,c!=d.")
@click.option("--no-headers", is_flag=True, help="Tables without their first line.")
def get(
    *,
    what: tuple[str, ...],
    output: str,
    watch: bool,
    all_namespaces: bool,
    selector: str | None,
    no_headers: bool,
) -> None:
    """List objects: swarms (sw), swarmclasses (swc), projects (proj), tasks (ct), approvals
    (appr), secrets, configmaps; "all" is every kind of Codeswarm's own.

    \b
    Examples:
      codeswarm get swarms
      codeswarm get tasks -w
      codeswarm get task/greeter.docs -o yaml
      codeswarm get all -A
      codeswarm get tasks -l codeswarm.dev/project=greeter -o wide
      codeswarm get project greeter -o jsonpath='{.status.branch}'
    """
    chosen = printing.parse_output(output)
    selections = parse(what)
    query = Query(session(), selections, all_namespaces, label_predicate(selector))
    if all_namespaces and any(s.names for s in selections):
        raise CliError("an object cannot be named across all namespaces; leave out -A")
    if watch:
        _watch(query, chosen, headers=not no_headers)
        return
    groups = query.groups()
    if any(objects for _, objects in groups) or not (chosen.tabular or query.missing):
        click.echo(_shown(groups, selections, chosen, query, headers=not no_headers), nl=False)
    elif not query.missing:
        click.echo(query.nothing(), err=True)
    query.check()


def _shown(
    groups: Sequence[Group],
    selections: Sequence[Selection],
    output: Output,
    query: Query,
    *,
    headers: bool,
) -> str:
    if output.tabular:
        return printing.tables(
            groups,
            wide=output.format == "wide",
            headers=headers,
            with_namespace=query.all_namespaces,
        )
    objects = [obj for _, group in groups for obj in group]
    if output.format == "name":
        return printing.names(objects)
    named = len(selections) == 1 and selections[0].names and len(selections[0].names) == 1
    return printing.structured(
        output, objects[0] if named and objects else printing.as_list(objects)
    )


def _watch(query: Query, output: Output, *, headers: bool) -> None:
    """Print what there is, then every object again whose version has changed."""
    printer = _WatchPrinter(query, output, headers=headers)
    with query.watch() as watch:
        printer.show(query.groups())
        query.check()
        while True:
            printer.show(query.changed(watch.wait(3600)))


class _WatchPrinter:
    """Prints the objects that it has not printed in this version."""

    def __init__(self, query: Query, output: Output, *, headers: bool) -> None:
        self._output = output
        self._headers = headers
        self._versions: dict[str, str] = {}
        self._rows = {
            selection.kind: Rows(
                selection.kind,
                wide=output.format == "wide",
                with_namespace=query.all_namespaces,
                qualified=len(query.selections) > 1,
            )
            for selection in query.selections
        }
        self._widths: dict[str, list[int]] = {}

    def show(self, groups: Sequence[Group]) -> None:
        """Print what is new."""
        for kind, objects in groups:
            fresh = [obj for obj in objects if self._is_new(obj)]
            if not fresh:
                continue
            if self._output.tabular:
                self._print_rows(kind.kind, self._rows[kind], fresh)
            elif self._output.format == "name":
                click.echo(printing.names(fresh), nl=False)
            else:
                for obj in fresh:
                    click.echo(printing.structured(self._output, obj), nl=False)

    def _is_new(self, obj: Resource) -> bool:
        meta = obj["metadata"]
        if self._versions.get(meta["uid"]) == meta["resourceVersion"]:
            return False
        self._versions[meta["uid"]] = meta["resourceVersion"]
        return True

    def _print_rows(self, kind: str, rows: Rows, objects: Sequence[Resource]) -> None:
        """Rows as wide as those before, so that what follows stays in line."""
        now = time.time()
        cells = [rows.row(obj, now) for obj in objects]
        first = kind not in self._widths
        widths = self._widths.setdefault(kind, [0] * len(rows.headers))
        shown = [rows.headers, *cells] if first and self._headers else cells
        click.echo(table.render_wide(shown, widths), nl=False)
