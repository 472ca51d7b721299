"""Exit codes, and the error that carries one to the top."""

from __future__ import annotations

from collections.abc import Iterable

OK = 0
FAILURE = 1  # a user's mistake: not found, invalid, a conflict; for `diff`: there are differences
USAGE = 2  # the command line itself (click's own)
TIMED_OUT = 3
WAITED_FOR_FAILED = 4
UNAVAILABLE = 5  # the store or the controller
INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0    done
  1    not found, not valid, refused (diff: there are differences)
  2    the command line is wrong
  3    a wait timed out
  4    what was waited for failed
  5    the controller or the state is not available
  130  interrupted (Ctrl-C)"""


class CliError(Exception):
    """Ends the program with ``error: <text>`` and an exit code."""

    def __init__(self, text: str, code: int = FAILURE) -> None:
        super().__init__(text)
        self.code = code


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` for close matches, else nothing."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.7)
    if not close:
        return ""
    return "; did you mean " + " or ".join(f'"{match}"' for match in close) + "?"
