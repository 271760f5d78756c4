"""Fills a second database from the log, through the workers' own sink: the same decoding, dedupe, rollups and ledger.

A replay that was killed goes on where its ledger says, like a worker. Dead letters go to its table, and to no topic.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from uuid import uuid4

import polars as pl
import pyarrow as pa

from pipelines.replay.sources import Source, polled
from schemas.errors import WattStreamError
from schemas.events import EventType
from schemas.progress import Progress
from schemas.settings import Settings
from streams.dedupe import Seen
from streams.flush import Flush
from streams.ledger import Ledger, Position
from streams.polled import Run
from streams.sink import Sink
from streams.takes import Log, Takes

# Each holds what a worker holds of a topic, and Kafka's client up to 64 MB a partition.
TOPICS_AT_ONCE = 3
THREADS = 2
# How often a partition that the sink holds back asks whether it takes more.
_HELD_SECONDS = 0.02
_LOOK_SECONDS = 0.1

Ends = Mapping[tuple[str, int], int]
"""By topic and partition: the offset up to which, not including it, is replayed."""


def fill(
    settings: Settings,
    database: str,
    source: Source,
    event_types: Sequence[EventType],
    ends: Ends,
    progress: Progress,
) -> None:
    """Bring the tables of ``database`` up to the ends: what is there already is left as it is.

    :raises WattStreamError: where messages can't be had, or its ledger contradicts the log.
    """
    done = ends_of(settings, database)

    async def all_topics() -> None:
        at_once = asyncio.Semaphore(TOPICS_AT_ONCE)

        async def one(event_type: EventType, of_topic: Mapping[int, int]) -> None:
            async with at_once:
                await _Topic(settings, database, source, event_type, of_topic).run(progress)

        async with asyncio.TaskGroup() as topics:
            for event_type in event_types:
                topic = event_type.topic
                behind = {p: end for (of, p), end in ends.items() if of == topic and done.get((of, p), 0) < end}
                if behind:
                    topics.create_task(one(event_type, behind))

    try:
        asyncio.run(all_topics())
    except* WattStreamError as errors:
        raise errors.exceptions[0] from None


class _Topic:
    """One topic's partitions side by side; also the sink's reader."""

    def __init__(
        self, settings: Settings, database: str, source: Source, event_type: EventType, ends: Mapping[int, int]
    ) -> None:
        self._source = source
        self._topic = event_type.topic
        self._ends = ends
        self._logs = source.logs(event_type.topic)
        self._feeds: dict[int, asyncio.Task[None]] = {}
        self._read: dict[int, int] = {}
        """By partition: the offset after the last message, once all were handed over."""
        self._seen = Seen(settings.dedupe_bytes // TOPICS_AT_ONCE) if settings.dedupe else None
        self._settings = settings
        connect = partial(settings.clickhouse_client, "writer", database=database)
        self._takes = Takes(connect, event_type, worker=uuid4())
        self._pools = [ThreadPoolExecutor(THREADS) for _ in range(3)]
        takers, decoders, writers = self._pools
        self._sink = Sink(
            event_type,
            reader=self,
            take=self._take,
            held=lambda _: set(),  # there are no rebalances
            flush=Flush(event_type, Ledger(connect, event_type), self._seen, publish=lambda _: None),
            takers=takers,
            decoders=decoders,
            writers=writers,
            flush_seconds=settings.flush_seconds,
            flush_rows=settings.flush_rows,
            group_timeout_seconds=settings.group_timeout_seconds,
        )

    def _take(self, partitions: Collection[int], _: Callable[[], bool]) -> Mapping[int, Position | Exception]:
        logs: dict[int, Log] = {}
        for partition in partitions:
            if self._seen is not None:
                self._seen.forget(partition)
            log = self._logs[partition]
            logs[partition] = replace(log, end=max(log.end, self._ends[partition]))
        return self._takes.take(logs, timeout_seconds=self._settings.clickhouse_timeout_seconds)

    async def start_run(self, run: Run) -> None:
        """What the sink calls when it has taken a partition."""
        if run.partition in self._feeds:
            self._feeds[run.partition].cancel()
        self._read.pop(run.partition, None)
        self._feeds[run.partition] = asyncio.create_task(self._feed(run))

    async def _feed(self, run: Run) -> None:
        end = self._ends[run.partition]
        if run.position < end:
            batches = self._source.read(run.topic, run.partition, run.position, end)
            while (batch := await asyncio.to_thread(_next, batches)) is not None:
                while not run.open:
                    await asyncio.sleep(_HELD_SECONDS)
                self._sink.offer(polled(run, batch))
        self._read[run.partition] = run.position

    async def run(self, progress: Progress) -> None:
        """Until all partitions are done."""
        self._sink.assign(set(self._ends))
        sinking = asyncio.create_task(self._sink.run())
        progressed = self._sink.progress
        starts = {partition: self._logs[partition].start for partition in self._ends}
        total = sum(max(0, end - starts[partition]) for partition, end in self._ends.items())
        try:
            while any(progressed.positions.get(p) != self._read.get(p, -1) for p in self._ends):
                for why in progressed.halted.values():
                    raise WattStreamError(why)
                for feed in self._feeds.values():
                    if feed.done() and not feed.cancelled() and (error := feed.exception()) is not None:
                        raise error
                at = sum(progressed.positions.get(p, start) - start for p, start in starts.items())
                progress(f"{self._topic}, offsets", at, total)
                await asyncio.sleep(_LOOK_SECONDS)
            progress(f"{self._topic}, offsets", total, total)
        finally:
            for task in (sinking, *self._feeds.values()):
                task.cancel()
            await asyncio.gather(sinking, *self._feeds.values(), return_exceptions=True)
            for pool in self._pools:
                pool.shutdown()


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next(batches, None)


def ends_of(settings: Settings, database: str) -> dict[tuple[str, int], int]:
    """Up to where each partition is done in that database.

    :raises WattStreamError: where ClickHouse doesn't answer.
    """
    client = settings.clickhouse_client("writer", database=database)
    try:
        found = pl.DataFrame(
            pl.from_arrow(
                client.query_arrow(
                    "SELECT topic, topic_partition, max(last) + 1 AS done FROM ingest_ranges GROUP BY ALL",
                    use_strings=True,
                )
            )
        )
    finally:
        client.close()
    return {(topic, partition): done for topic, partition, done in found.iter_rows()}
