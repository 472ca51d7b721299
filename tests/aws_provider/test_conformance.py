"""The conformance suite, for workers on machines of a test cloud."""

from __future__ import annotations

from tests.providers.conformance import ProviderConformance


class TestAws(ProviderConformance):
    """With real boto3, SSH, file systems, and the worker that users get."""

    ended_where_they_are = True
