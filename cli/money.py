"""Costs as people read them; status has the exact amounts."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal, InvalidOperation

CENT, SMALL = Decimal("0.01"), Decimal("0.0001")


def money(cost: object) -> str:
    """``status.costUsd`` for people: ``$1.24``, below one dollar ``$0.0043``, rounded up.

    What has no price stays said: ``unpriced``, ``$1.24 + unpriced``.
    """
    text = cost if isinstance(cost, str) else ""
    amount, plus, rest = text.partition(" + ")
    try:
        value = Decimal(amount)
    except InvalidOperation:
        return text
    if not value.is_finite():
        return text
    step = CENT if value >= 1 else SMALL
    try:
        shown = value.quantize(step, rounding=ROUND_UP)
    except InvalidOperation:  # more digits than anybody reads
        shown = value.to_integral_value(rounding=ROUND_UP)
    return f"${shown if value else 0}{plus}{rest}"
