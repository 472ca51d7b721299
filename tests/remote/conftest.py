"""One sshd for the tests of a file."""

from tests.sshd import login_host

__all__ = ["login_host"]
