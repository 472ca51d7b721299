"""The built-in price list: what models of OpenAI and Anthropic cost at their makers' own APIs.

Gathered on ``AS_OF`` from published accounts of the pages in ``SOURCES``: standard processing,
short prompts, cache entries of five minutes.  Prices change, and surcharges for long prompts,
priority or regions are not in it.  What counts for you goes into ``modelPricing`` of the
configuration, which replaces these prices model by model.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from types import MappingProxyType

from controller.resources.prices import ModelPrice, price_key

AS_OF = "2026-11-22"
SOURCES = (
    "https://developers.openai.com/api/docs/pricing",
    "https://platform.claude.com/docs/en/about-claude/pricing",
)

_LIST = """
# model               input  cached  cache-write  output
gpt-5                  1.25   0.125   -           10
gpt-5-codex            1.25   0.125   -           10
gpt-5-mini             0.25   0.025   -            2
gpt-5-nano             0.05   0.005   -            0.4
gpt-5-pro             15      -       -          120
gpt-5.1                1.25   0.125   -           10
gpt-5.1-codex          1.25   0.125   -           10
gpt-5.1-codex-max      1.25   0.125   -           10
gpt-5.1-codex-mini     0.25   0.025   -            2
gpt-5.2                1.75   0.175   -           14
gpt-5.2-codex          1.75   0.175   -           14
gpt-5.2-pro           21      -       -          168
gpt-5.3-codex          1.75   0.175   -           14
gpt-5.4                2.5    0.25    -           15
gpt-5.4-mini           0.75   0.075   -            4.5
gpt-5.4-nano           0.2    0.02    -            1.25
gpt-5.4-pro           30      -       -          180
gpt-5.5                5      0.5     -           30
gpt-5.5-pro           30      -       -          180
gpt-5.6-sol            4      0.4     -           20
gpt-5.6-terra          2      0.2     -           12
gpt-5.6-luna           0.2    0.02    -            1.2
gpt-6-astra           10      1       -           50
gpt-6-sol              2      0.2     2.5         10
gpt-6-luna             0.1    0.01    0.125        0.5
claude-fable-5-1      10      0.25   12.5         50
claude-fable-5        10      1      12.5         50
claude-opus-5-5        4      0.2     5           20
claude-opus-5          5      0.5     6.25        25
claude-opus-4-8        5      0.5     6.25        25
claude-opus-4-7        5      0.5     6.25        25
claude-opus-4-6        5      0.5     6.25        25
claude-opus-4-5        5      0.5     6.25        25
claude-opus-4-1       15      1.5    18.75        75
claude-opus-4         15      1.5    18.75        75
claude-sonnet-5-5      2      0.1     2.5         10
claude-sonnet-5        2      0.2     2.5         10
claude-sonnet-4-6      3      0.3     3.75        15
claude-sonnet-4-5      3      0.3     3.75        15
claude-sonnet-4        3      0.3     3.75        15
claude-haiku-5-5       0.1    0.01    0.125        0.5
claude-haiku-4-5       1      0.1     1.25         5
claude-3-5-haiku       0.8    0.08    1            4
"""


@cache
def built_in() -> Mapping[str, ModelPrice]:
    """The list, by ``price_key``."""
    found = {}
    for line in _LIST.splitlines():
        if line and not line.startswith("#"):
            name, *columns = line.split()
            read, cached, write, output = (None if c == "-" else Decimal(c) for c in columns)
            assert read is not None and output is not None, line
            found[price_key(name)] = ModelPrice(read, output, cached, write, name=name)
    return MappingProxyType(found)
