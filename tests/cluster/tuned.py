"""A controller some of whose times are shorter, so that tests need not wait for long ones.

Run as ``python -m tests.cluster.tuned``, with the command line of a controller.  The variable
``CODESWARM_TEST_TIMES`` is a JSON object: ``{"controller.runtime.lease:RENEW_SECONDS": 1}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

VARIABLE = "CODESWARM_TEST_TIMES"


def main() -> int:
    """Tune, then be the controller."""
    for place, seconds in json.loads(os.environ.pop(VARIABLE)).items():
        module, _, name = place.partition(":")
        known = importlib.import_module(module)
        assert isinstance(getattr(known, name), float), place
        setattr(known, name, float(seconds))
    from cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
