"""The numbers of a running stack: how much comes in and gets through, what waits, and how complete it is."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # pyright: ignore[reportPrivateImportUsage]

from pipelines.local.state import StackFiles
from schemas.errors import WattStreamError
from schemas.settings import Settings
from schemas.versions import at, version_in_use

# Rates are means over this time: long enough for a flush each second, short enough to see a stop.
RATE_SECONDS = 10
_TIMEOUT_SECONDS = 3.0

_LEDGER = """
SELECT topic, topic_partition, topic_id, max(last) + 1 AS position, max(done) AS latest, sum(events) AS all_events,
    sum(messages) AS all_messages, sumIf(events, done > now64(3) - INTERVAL {seconds:UInt32} SECOND) AS fresh_events,
    sumIf(messages, done > now64(3) - INTERVAL {seconds:UInt32} SECOND) AS fresh_messages
FROM ingest_ranges GROUP BY topic, topic_partition, topic_id ORDER BY latest
"""
_DEADLETTERS = "SELECT count() FROM deadletters"
_COMPLETENESS = """
SELECT sum(heard) / sum(expected) FROM completeness(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')})
"""


@dataclass(frozen=True)
class Numbers:
    """What flows through the stack now; None where Kafka or ClickHouse could not be asked."""

    events_in: float | None = None
    """Events a second that arrived in Kafka, over the last 10 s; batches counted by their topic's mean size of late."""
    events_out: float | None = None
    """Events a second that became queryable, over the last 10 s."""
    lag: dict[str, int] = field(default_factory=dict)
    """Kafka records that wait, by input topic."""
    freshness: float | None = None
    """Age, in seconds since its arrival, of the oldest record that can't be queried yet; 0 when nothing waits."""
    deadletters: int | None = None
    completeness: float | None = None
    """Emitters heard / expected over the last five whole minutes, 0 to 1; None where none is expected."""


@dataclass(frozen=True)
class _Ledger:
    positions: dict[tuple[str, int], int]
    events_per_message: dict[str, float]
    fresh: float


class NumbersReader:
    """Asks Kafka and ClickHouse, keeping its connections between reads; for one thread."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._client: Client | None = None
        self._admin = AdminClient(settings.kafka_client() | {"log_level": 0})
        # Of each partition one record is read: little is fetched, and what is queued of one partition doesn't hold the
        # next one up (the back-off is a second unless told: three partitions then took the whole time-out).
        one_record = {"queued.min.messages": 1, "max.partition.fetch.bytes": 65_536, "fetch.queue.backoff.ms": 10}
        quiet = {"log_level": 0, "enable.auto.commit": False, "fetch.wait.max.ms": 50}
        self._consumer = Consumer(settings.kafka_client(group_id="wattstream-status") | quiet | one_record)

    def __enter__(self) -> "NumbersReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self) -> Numbers:
        """The numbers now; takes a few seconds where something doesn't answer."""
        deadletters = self._one(_DEADLETTERS)
        ledger = self._ledger() if deadletters is not None else None
        completeness = self._completeness() if deadletters is not None else None
        events_in, lag, freshness = self._log(ledger)
        return Numbers(
            events_in=events_in,
            events_out=ledger.fresh if ledger else None,
            lag=lag,
            freshness=freshness,
            deadletters=None if deadletters is None else int(deadletters),
            completeness=completeness,
        )

    def _query(self, sql: str, **parameters: Any) -> list[dict[str, Any]] | None:
        try:
            if self._client is None:
                self._client = self._settings.clickhouse_client("viewer", send_receive_timeout=10)
            return list(self._client.query(sql, parameters=parameters).named_results())
        except (WattStreamError, ClickHouseError, OSError):
            self._client = None
            return None

    def _one(self, sql: str, **parameters: Any) -> float | None:
        rows = self._query(sql, **parameters)
        return next(iter(rows[0].values())) if rows else None

    def _ledger(self) -> _Ledger | None:
        rows = self._query(_LEDGER, seconds=RATE_SECONDS)
        if rows is None:
            return None
        # Rows come oldest first: of a topic that was made anew, the last one written counts.
        positions = {(row["topic"], row["topic_partition"]): row["position"] for row in rows}
        means: dict[str, float] = {}
        for topic in {row["topic"] for row in rows}:
            of_topic = [row for row in rows if row["topic"] == topic]
            # Of late, if there is any: a history's messages hold a thousand events, the live ones that follow one.
            for events, messages in (("fresh_events", "fresh_messages"), ("all_events", "all_messages")):
                if count := sum(row[messages] for row in of_topic):
                    means[topic] = sum(row[events] for row in of_topic) / count
                    break
        return _Ledger(positions, means, sum(row["fresh_events"] for row in rows) / RATE_SECONDS)

    def _completeness(self) -> float | None:
        # The current minute and the one before are still being filled.
        stop = datetime.fromtimestamp(self._clock() // 60 * 60 - 60, UTC)
        value = self._one(_COMPLETENESS, start=stop - timedelta(minutes=5), stop=stop)
        return None if value is None or math.isnan(value) else float(value)  # nothing expected: 0 / 0

    def _log(self, ledger: _Ledger | None) -> tuple[float | None, dict[str, int], float | None]:
        try:
            known = self._admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
            partitions = [
                TopicPartition(event_type.topic, number)
                for event_type in at(version_in_use(self._admin, known))
                if event_type.topic in known
                for number in known[event_type.topic].partitions
            ]
            if not partitions:
                return 0.0, {}, 0.0
            ends = self._offsets(partitions, OffsetSpec.latest())
            then = self._offsets(partitions, OffsetSpec.for_timestamp(int((self._clock() - RATE_SECONDS) * 1000)))
            starts = self._offsets(partitions, OffsetSpec.earliest())
        except KafkaException:
            return None, {}, None
        means = ledger.events_per_message if ledger else {}
        arrived = {place: end - then[place] if then[place] >= 0 else 0 for place, end in ends.items()}
        rate = sum(count * means.get(place[0], 1.0) for place, count in arrived.items()) / RATE_SECONDS
        if ledger is None:
            return rate, {}, None
        waiting = {
            place: max(ledger.positions.get(place, starts[place]), starts[place])
            for place, end in ends.items()
            if end > max(ledger.positions.get(place, starts[place]), starts[place])
        }
        lag = dict.fromkeys((place[0] for place in ends), 0)
        for place, position in waiting.items():
            lag[place[0]] += ends[place] - position
        return rate, lag, self._age(waiting)

    def _offsets(self, partitions: list[TopicPartition], spec: Any) -> dict[tuple[str, int], int]:
        places: dict[TopicPartition, Any] = dict.fromkeys(partitions, spec)
        futures = self._admin.list_offsets(places, request_timeout=_TIMEOUT_SECONDS)
        return {(where.topic, where.partition): future.result().offset for where, future in futures.items()}

    def _age(self, waiting: dict[tuple[str, int], int]) -> float | None:
        """Age of the oldest record at these positions, in seconds."""
        if not waiting:
            return 0.0
        self._consumer.assign([TopicPartition(topic, number, at) for (topic, number), at in waiting.items()])
        arrivals: dict[tuple[str, int], int] = {}
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        try:
            while len(arrivals) < len(waiting) and time.monotonic() < deadline:
                message = self._consumer.poll(0.2)
                if message is None or message.error() is not None:
                    continue
                place = (message.topic() or "", message.partition() or 0)
                if place not in arrivals:
                    arrivals[place] = message.timestamp()[1]
                    self._consumer.pause([TopicPartition(*place)])
        finally:
            with contextlib.suppress(KafkaException):
                self._consumer.resume([TopicPartition(*place) for place in arrivals])  # or it stays paused for good
                self._consumer.unassign()
        return max(0.0, self._clock() - min(arrivals.values()) / 1000) if arrivals else None


def parts_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """The parts of the stack in this home, by name: state, host, port, url and pid, restarts and the last error."""
    snapshot = StackFiles(settings.home).read()
    return snapshot["parts"] if snapshot else {}


def report(settings: Settings, numbers: Numbers, secrets: bool = False) -> dict[str, Any]:
    """What `wattstream status --json` prints."""
    document: dict[str, Any] = {
        "parts": parts_of(settings),
        "events_per_s": {"in": _rounded(numbers.events_in), "out": _rounded(numbers.events_out)},
        "lag": numbers.lag,
        "freshness_s": _rounded(numbers.freshness, 3),
        "deadletters": numbers.deadletters,
        "completeness": _rounded(numbers.completeness, 4),
    }
    if secrets:
        document["users"] = settings.passwords()
    return document


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
