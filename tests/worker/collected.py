"""What a follower has handed on."""

from __future__ import annotations

from pathlib import Path

from providers.base import RecordBatch
from tests.providers.harness import until


class Collected:
    """A sink that keeps all."""

    def __init__(self) -> None:
        self.batches: list[RecordBatch] = []

    def __call__(self, batch: RecordBatch) -> None:
        self.batches.append(batch)

    def lines(self, job: str = "job") -> list[bytes]:
        """What came of a job."""
        return [line for batch in self.batches if batch.job == job for line in batch.lines]

    async def has(self, *lines: bytes) -> None:
        """Wait for exactly these lines."""

        async def equal() -> bool:
            return self.lines() == list(lines)

        await until(equal, f"{lines}")


def append(path: Path, data: bytes) -> None:
    """Add bytes to a file."""
    with path.open("ab") as file:
        file.write(data)
