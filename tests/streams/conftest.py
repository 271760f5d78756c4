"""What the tests of the stream worker share: polls made by hand, and arbitrary events of each type."""

from collections.abc import Callable, Sequence

import pytest

from schemas.events import EventType
from streams.polled import Polled, Run

ARRIVED_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@pytest.fixture(scope="session")
def poll() -> Callable[..., Polled]:
    """Makes one poll of messages; offsets from ``first`` unless given."""

    def make(
        event_type: EventType,
        values: Sequence[bytes | None],
        *,
        content_types: Sequence[bytes | None] | None = None,
        first: int = 0,
        partition: int = 0,
        run: Run | None = None,
    ) -> Polled:
        count = len(values)
        return Polled(
            run=run or Run(event_type.topic, partition, first),
            expected=first,
            values=list(values),
            keys=[b"key"] * count,
            content_types=list(content_types or [None] * count),
            offsets=list(range(first, first + count)),
            arrived=[ARRIVED_MS + i for i in range(count)],
            bytes=sum(len(value or b"") for value in values),
        )

    return make
