"""The table of good and bad objects that file mode and a real API server must judge alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources.admission import Invalid, admit

CASES = Path(__file__).parent / "cases"


def load_cases() -> list[Any]:
    found = []
    for file in sorted(CASES.glob("*.yaml")):
        table = yaml.safe_load(file.read_text())
        for case in table["cases"]:
            case["object"] = {**table["base"], **case["object"]}
            if "old" in case:
                case["old"] = {**table["base"], **case["old"]}
            found.append(pytest.param(case, id=f"{file.stem}: {case['name']}"))
    return found


@pytest.mark.parametrize("case", load_cases())
def test_file_mode_judges_as_the_table_says(case: dict[str, Any]) -> None:
    old = admit(case["old"]) if "old" in case else None
    if case["accept"]:
        admitted = admit(case["object"], old)
        assert admit(admitted, admitted) == admitted
        return
    with pytest.raises(Invalid) as refusal:
        admit(case["object"], old)
    assert case["phrase"] in str(refusal.value)
