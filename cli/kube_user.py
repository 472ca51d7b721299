"""Who the API server takes this client for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.kube_server import Server

_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def server_name(server: Server) -> str:
    """The user name of these credentials; empty where the server does not tell (before 1.28).

    Raises: StoreUnavailable.
    """
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = server.send("POST", _REVIEW, body=body)
    if answer.status >= 400:
        return ""
    name = ((answer.json().get("status") or {}).get("userInfo") or {}).get("username")
    return name if isinstance(name, str) else ""
