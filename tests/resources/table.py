"""The table of good and bad manifests that every home must judge alike (``cases/*.yaml``).

A case is an ``object`` over the file's ``base`` (after ``old``, where that is given), or a
``text``: a manifest as a person wrote it.  ``accept`` is the verdict of every home, ``phrase``
stands in every refusal.  What differs says so itself: ``cluster`` is an API server's verdict,
``because`` the reason; ``since`` is the oldest API server that judges so.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources.errors import Invalid
from controller.resources.manifest import ManifestError, load

CASES = Path(__file__).parent / "cases"
REFUSALS = (Invalid, ManifestError)
"""How file mode refuses."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    accept: bool
    phrase: str = ""
    object: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    text: str = ""
    cluster: bool | None = None
    because: str = ""
    since: tuple[int, int] = (1, 0)
    """Version of the API server."""

    @property
    def cluster_accepts(self) -> bool:
        """The verdict of an API server."""
        return self.accept if self.cluster is None else self.cluster

    def read(self) -> dict[str, Any]:
        """The object, its text read as file mode does. Raises: ManifestError."""
        if self.object is not None:
            return self.object
        (document,) = load(["-"], BytesIO(self.text.encode()))
        return document.obj


def load_cases() -> list[Any]:
    """All cases, as pytest's parameters."""
    found = []
    for file in sorted(CASES.glob("*.yaml")):
        table = yaml.safe_load(file.read_text())
        for raw in table["cases"]:
            name = raw.pop("name")
            for part in ("old", "object"):
                if part in raw:
                    raw[part] = _spread({**table["base"], **raw[part]})
            if "text" in raw:
                raw["text"] = raw["text"].replace("BASE\n", table.get("text", ""))
            if "since" in raw:
                raw["since"] = tuple(int(part) for part in str(raw["since"]).split("."))
            case = Case(**raw)
            assert case.accept or case.phrase, f"{file.name}: {name}: no phrase"
            assert (case.cluster is None) == (not case.because), f"{file.name}: {name}: why?"
            found.append(pytest.param(case, id=f"{file.stem}: {name}"))
    return found


def _spread(value: Any) -> Any:
    """Long texts are written ``{repeat: x, times: 1000}``; as a field's name with its ``to``."""
    if isinstance(value, dict):
        if value.keys() >= {"repeat", "times"}:
            text = str(value["repeat"]) * int(value["times"])
            return {text: value["to"]} if "to" in value else text
        return {key: _spread(item) for key, item in value.items()}
    return [_spread(item) for item in value] if isinstance(value, list) else value
