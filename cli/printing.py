"""Objects as ``-o`` wants them: table, wide, name, json, yaml or jsonpath."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import ages, jsonpath, table
from cli.errors import CliError
from cli.money import money
from cli.selectors import reference

if TYPE_CHECKING:
    from controller.resources.kinds import Column, Kind
    from controller.store.base import Resource

FORMATS = ("table", "wide", "json", "yaml", "name")


@dataclass(frozen=True, slots=True)
class Output:
    """A parsed ``-o``."""

    format: str
    template: tuple[Any, ...] = ()

    @property
    def tabular(self) -> bool:
        """Whether it is a table with columns."""
        return self.format in ("table", "wide")


def parse_output(text: str) -> Output:
    """The output that ``-o`` names.

    Raises: CliError.
    """
    name, equals, template = text.partition("=")
    if name == "jsonpath" and equals:
        try:
            return Output("jsonpath", jsonpath.compile_template(template))
        except jsonpath.JsonPathError as error:
            raise CliError(str(error)) from None
    if text not in FORMATS:
        raise CliError(f'unknown output "{text}": {", ".join(FORMATS)} or jsonpath=TEMPLATE')
    return Output(text)


def columns_of(kind: Kind, wide: bool) -> list[Column]:
    """The printer columns to be shown."""
    return [column for column in kind.columns if wide or column.priority == 0]


class Rows:
    """Rows of one kind, by its CRD's printer columns."""

    def __init__(
        self,
        kind: Kind,
        *,
        wide: bool = False,
        with_namespace: bool = False,
        qualified: bool = False,
    ) -> None:
        self._columns = columns_of(kind, wide)
        self._paths = [jsonpath.compile_path(column.path) for column in self._columns]
        self._with_namespace = with_namespace
        self._qualified = qualified
        self.headers = [
            *(["NAMESPACE"] if with_namespace else []),
            "NAME",
            *(column.name.upper() for column in self._columns),
        ]

    def row(self, obj: Resource, now: float) -> list[str]:
        """The cells of one object; ``now`` in seconds since the epoch, for ages."""
        meta = obj["metadata"]
        name = reference(obj["kind"], meta["name"]) if self._qualified else meta["name"]
        cells = [meta.get("namespace", "default")] if self._with_namespace else []
        cells.append(name)
        for column, path in zip(self._columns, self._paths, strict=True):
            cells.append(_cell(column, jsonpath.evaluate(path, obj), now))
        return cells


def _cell(column: Column, values: Sequence[Any], now: float) -> str:
    if not values or values[0] is None:
        return ""
    if column.type == "date":
        return ages.age(str(values[0]), now)
    if column.path.endswith(".costUsd"):
        return money(values[0])
    return ",".join(jsonpath.as_text(value) for value in values)


def tables(
    groups: Sequence[tuple[Kind, Sequence[Resource]]],
    *,
    wide: bool,
    headers: bool,
    with_namespace: bool,
    now: float | None = None,
) -> str:
    """A table a kind, an empty line between them; kinds without objects are left out."""
    now = time.time() if now is None else now
    shown = [(kind, objects) for kind, objects in groups if objects]
    parts = []
    for kind, objects in shown:
        rows = Rows(kind, wide=wide, with_namespace=with_namespace, qualified=len(groups) > 1)
        cells = [rows.row(obj, now) for obj in objects]
        parts.append(table.render(rows.headers if headers else None, cells))
    return "\n".join(parts)


def as_list(objects: Sequence[Resource]) -> Resource:
    """A Kubernetes ``List``."""
    return {"apiVersion": "v1", "kind": "List", "items": list(objects), "metadata": {}}


def structured(output: Output, value: Resource) -> str:
    """One object or ``List`` as json, yaml or jsonpath."""
    if output.format == "json":
        return json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False) + "\n"
    if output.format == "yaml":
        return to_yaml(value)
    return jsonpath.render(output.template, value)


def names(objects: Sequence[Resource]) -> str:
    """``swarm.codeswarm.dev/builders``, one a line."""
    return "".join(f"{reference(obj['kind'], obj['metadata']['name'])}\n" for obj in objects)


def to_yaml(value: Any) -> str:
    """YAML with sorted keys; texts of several lines as blocks."""
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    dumper: Any = type("Dumper", (base,), {})
    represent: Callable[[Any, str], Any] = lambda dump, text: dump.represent_scalar(  # noqa: E731
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )
    dumper.add_representer(str, represent)
    text: str = yaml.dump(
        value, Dumper=dumper, default_flow_style=False, allow_unicode=True, width=100
    )
    return text
