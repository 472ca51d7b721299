"""Costs as people read them."""

import pytest

from cli.money import money


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (None, ""),
        ("", ""),
        ("0", "$0"),
        ("12.5", "$12.50"),
        ("1.2300001", "$1.24"),
        ("1", "$1.00"),
        ("0.9999", "$0.9999"),
        ("0.99991", "$1.0000"),
        ("0.00252", "$0.0026"),
        ("0.000000001", "$0.0001"),
        ("unpriced", "unpriced"),
        ("0.5 + unpriced", "$0.5000 + unpriced"),
        ("9" * 40, "$" + "9" * 40),
        ("NaN", "NaN"),
    ],
)
def test_dollars_are_rounded_up_and_what_is_unpriced_stays_said(cost: object, text: str) -> None:
    assert money(cost) == text
