"""File mode judges the table of good and bad manifests as every home must."""

from __future__ import annotations

import pytest

from controller.resources.admission import admit
from tests.resources.table import REFUSALS, Case, load_cases


@pytest.mark.parametrize("case", load_cases())
def test_file_mode_judges_as_the_table_says(case: Case) -> None:
    old = admit(case.old) if case.old is not None else None
    if case.accept:
        admitted = admit(case.read(), old)
        assert admit(admitted, admitted) == admitted
        return
    with pytest.raises(REFUSALS) as refusal:
        admit(case.read(), old)
    assert case.phrase.lower() in str(refusal.value).lower()
