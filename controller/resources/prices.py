"""What models cost: prices by name, the configured ones over the built-in list.

A name is looked up as it is, then without what gateways and releases put around it; see
``spellings``.  What is not found has no price: it is never taken for free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

MAX_NAME = 256
"""Longer names are looked up as they are."""
_CACHED_LOOKUPS = 1000
_VARIANT = re.compile(r"\[[^\]]*\]$")
_CLOUD = re.compile(r"^(?:[a-z]{2,6}\.)?(?:anthropic|openai)\.")
_CLOUD_VERSION = re.compile(r"-v[0-9]+(?::[0-9]+)?$")
_RELEASE = re.compile(r"[-@_](?:20[0-9]{2}-?[01][0-9]-?[0-3][0-9]|latest)$")


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars for a million tokens; None where the list does not say."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning_output: Decimal | None = None
    name: str = field(default="", compare=False)
    """As the list spells the model."""


def price_key(model: str) -> str:
    """A model's name without case and punctuation: ``GPT-5.4`` and ``gpt_5_4`` are one."""
    return re.sub(r"[^a-z0-9]", "", model.lower())


def spellings(model: str) -> Iterator[str]:
    """Keys under which a model's price may stand, the most exact first.

    Without a variant of the same model (``claude-sonnet-5-5[1m]``), without the path of a gateway
    (``openai/gpt-5.4``) or a cloud's naming (``us.anthropic.claude-opus-5-v1:0``), and without the
    date of a release (``gpt-5.4-2026-03-05``, ``claude-sonnet-5-5-20260101``, ``...-latest``).
    Other endings, such as ``-mini`` or ``-pro``, are other models.
    """
    yield price_key(model)
    if len(model) > MAX_NAME:
        return
    name = _VARIANT.sub("", model.strip().lower()).rpartition("/")[2]
    yield price_key(name)
    if _CLOUD.match(name):
        name = _CLOUD_VERSION.sub("", _CLOUD.sub("", name))
        yield price_key(name)
    yield price_key(_RELEASE.sub("", name))


class Prices:
    """All prices that hold for one controller."""

    def __init__(
        self, configured: Mapping[str, ModelPrice], built_in: Mapping[str, ModelPrice]
    ) -> None:
        """Both are by ``price_key``; a configured price replaces a built-in one."""
        self._configured = configured
        self._all = {**built_in, **configured}
        self._known: dict[str, ModelPrice | None] = {}

    def find(self, model: str) -> ModelPrice | None:
        """The price of a model, or None where it has none."""
        if not model:
            return None
        if model not in self._known:
            if len(self._known) >= _CACHED_LOOKUPS:  # names come from agents
                self._known.clear()
            self._known[model] = self._look(self._all, model)
        return self._known[model]

    def configured(self, model: str) -> bool:
        """Whether the configuration itself gives this model a price."""
        return self._look(self._configured, model) is not None

    @staticmethod
    def _look(prices: Mapping[str, ModelPrice], model: str) -> ModelPrice | None:
        found = (prices[key] for key in spellings(model) if key and key in prices)
        return next(found, None)
