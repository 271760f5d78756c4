"""What the tests of the stream worker share: polls made by hand, and arbitrary events of each type."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from pipelines.migrate import migrate
from schemas.events import EventType
from schemas.settings import Settings
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
            arrived=[ARRIVED_MS + first + i for i in range(count)],
            bytes=sum(len(value or b"") for value in values),
        )

    return make


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings that point at a real engine with the tables in it."""
    settings = Settings(home=tmp_path_factory.mktemp("tables"), port_base=free_ports(20))
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        migrate(settings)
        yield settings


@pytest.fixture(scope="session")
def new_partition() -> Callable[[], int]:
    """A topic partition that no other test has used."""
    numbers = itertools.count(1000)
    return lambda: next(numbers)


@pytest.fixture
def whole_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each audit looks at all hours there are, however slow the machine is, in as many turns as it can."""
    monkeypatch.setattr("streams.audit.SWEEP_SECONDS", 600.0)
    monkeypatch.setattr("streams.audit.TURN_SECONDS", 0.0)
