"""Asking a spot instance's metadata service whether the instance is about to be taken away.

EC2 says so two minutes before, at ``spot/instance-action`` (Amazon EC2 User Guide, "Spot Instance
interruption notices").  IMDSv2: a token first.
"""

from __future__ import annotations

import urllib.error
import urllib.request

ENDPOINT = "http://169.254.169.254"
TIMEOUT = 1.0
_TOKEN_SECONDS = 21600
_MAX = 4096
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Metadata:
    """One instance's metadata service.

    Args:
        endpoint: its URL; empty: EC2's own.
    """

    def __init__(self, endpoint: str = "") -> None:
        self._base = (endpoint or ENDPOINT).rstrip("/")
        self._token = ""

    def notice(self) -> str | None:
        """What is about to be done with the instance; None: nothing, or nobody answers."""
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
