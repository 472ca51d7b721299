"""Asking a spot instance's metadata service whether the instance is about to be taken away.

EC2 says so two minutes before, at ``spot/instance-action``, and asks to look every 5 s (Amazon EC2
User Guide, "Spot Instance interruption notices").  IMDSv2: a token first.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable

ENDPOINT = "http://169.254.169.254"
SECONDS = 5.0
TIMEOUT = 1.0
_TOKEN_SECONDS = 21600
_MAX = 4096
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Watch(threading.Thread):
    """Looks until there is a notice, then tells it once.

    Args:
        endpoint: URL of the metadata service; empty: EC2's own.
        tell: called in this thread with what the notice says.
        seconds: between two looks.
    """

    def __init__(
        self, endpoint: str, tell: Callable[[str], None], seconds: float = SECONDS
    ) -> None:
        super().__init__(daemon=True)
        self._base = (endpoint or ENDPOINT).rstrip("/")
        self._tell = tell
        self._seconds = seconds
        self._token = ""
        self._done = threading.Event()

    def run(self) -> None:
        """Look until there is a notice."""
        while not self._done.is_set():
            notice = self._look()
            if notice is not None:
                self._tell(notice)
                return
            self._done.wait(self._seconds)

    def end(self) -> None:
        """Look no more."""
        self._done.set()

    def _look(self) -> str | None:
        """The notice; None: there is none, or nobody answers."""
        try:
            if not self._token:
                headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
                self._token = self._ask("PUT", "/latest/api/token", headers)
            headers = {"X-aws-ec2-metadata-token": self._token}
            return self._ask("GET", "/latest/meta-data/spot/instance-action", headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                self._token = ""
        except (OSError, ValueError):
            pass
        return None

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        """Raises: OSError (HTTPError among them), ValueError (http.client's own are)."""
        request = urllib.request.Request(self._base + path, headers=headers, method=method)
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            text: str = answer.read(_MAX).decode("utf-8", "replace").strip()
            return text
