"""Where a replay reads messages: Kafka's log, or the archive and, from its end on, the log."""

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa

from dags.archive.kafka import KafkaLogs
from dags.archive.store import Archive
from schemas.envelope import content_type
from schemas.errors import WattStreamError
from schemas.settings import Settings
from streams.polled import Polled, Run
from streams.takes import Log


class Source(Protocol):
    """Messages by topic, partition and offset."""

    def logs(self, topic: str) -> dict[int, Log]:
        """What there is of each partition.

        :raises WattStreamError: where it can't be said.
        """
        ...

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """The messages from offset ``start`` up to, not including, ``end``, in the archive's schema.

        :raises WattStreamError: where some are gone.
        """
        ...


class FromKafka:
    """The log as Kafka holds it now."""

    def __init__(self, settings: Settings) -> None:
        self._logs = KafkaLogs(settings)
        self.read = self._logs.read

    def logs(self, topic: str) -> dict[int, Log]:
        """By partition; a topic that isn't there has none."""
        found = self._logs.topic(topic)
        if found is None:
            return {}
        return {p: Log(found.topic_id, bounds.start, bounds.end) for p, bounds in found.partitions.items()}


class FromArchive:
    """The archive as far as it reaches without a gap, and the log from there on."""

    def __init__(self, settings: Settings) -> None:
        self._kafka = FromKafka(settings)
        self._archive = Archive(settings.archive_folder)

    def logs(self, topic: str) -> dict[int, Log]:
        """The log's, beginning where the archive does."""
        found: dict[int, Log] = {}
        for partition, log in self._kafka.logs(topic).items():
            chain = self._archive.chain(topic, partition)
            if chain.topic_ids - {log.topic_id}:
                raise WattStreamError(
                    f"{topic}: the archive in {self._archive.folder} is of another topic of that name (the topic was "
                    "made anew). Move its folder away, and archive again."
                )
            start = log.start if chain.start is None else min(chain.start, log.start)
            found[partition] = Log(log.topic_id, start, log.end)
        return found

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """First what the archive has."""
        reach = min(end, self._archive.chain(topic, partition).reach or start)
        if start < reach:
            yield from self._archive.messages(topic, partition, start, reach)
        if max(start, reach) < end:
            yield from self._kafka.read(topic, partition, max(start, reach), end)


def polled(run: Run, batch: pa.RecordBatch) -> Polled:
    """The batch as a poll that follows what was read of the run before."""
    columns: dict[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    values: list[bytes | None] = columns["value"].to_pylist()
    found = Polled(
        run=run,
        expected=run.position,
        values=values,
        keys=columns["key"].to_pylist(),
        content_types=[
            content_type([(header["name"], header["value"]) for header in headers])
            for headers in columns["headers"].to_pylist()
        ],
        offsets=columns["offset"].to_pylist(),
        arrived=columns["timestamp"].cast(pa.int64()).to_pylist(),
        bytes=sum(map(len, filter(None, values))),
    )
    run.position = run.fetched = found.last + 1
    return found
