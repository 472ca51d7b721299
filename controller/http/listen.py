"""Sockets to listen on, and how their addresses are written."""

from __future__ import annotations

import ipaddress
import socket

BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; clients wait in the backlog until somebody accepts.

    Args:
        host: a name or an address; empty: every address, of IPv6 too where there is any.
        port: 0: any free one.

    Raises: OSError.
    """
    if not host:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
            )
        return socket.create_server(("", port), backlog=BACKLOG)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def port_of(sock: socket.socket) -> int:
    """The port that a socket listens on."""
    return int(sock.getsockname()[1])


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach a listening socket."""
    return _address(sock).is_loopback


def url_of(sock: socket.socket) -> str:
    """How this machine reaches a listening socket: ``http://127.0.0.1:4000``."""
    address = _address(sock)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{bracketed(address)}:{port_of(sock)}"


def bracketed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if address.version == 6 else str(address)


def address_of(sock: socket.socket) -> str:
    """The address that a socket listens on, as it stands in a URL."""
    return bracketed(_address(sock))


def _address(sock: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(sock.getsockname()[0]).partition("%")[0])
