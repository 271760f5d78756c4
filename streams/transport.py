"""Faust's aiokafka transport, changed: one message a partition and poll, positions of our own, and short fetches.

Faust spends about 75 us of machinery on a message, so each partition's records of a poll travel as one message. And
positions come from the ledger, not from Kafka's committed offsets: a partition delivers nothing until it was started at
a position, inside the consumer's own thread, and everything fetched before or for another start is dropped there.

All use private methods of faust-streaming, which is therefore pinned exactly; tests/streams/test_transport.py and
tests/e2e/test_worker.py hold the behaviour.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

import faust
from aiokafka.errors import ConsumerStoppedError
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.fetching import Drained, drained
from streams.polled import Polled, Run

# A poll that waits longer delays a partition that is started meanwhile, since the set of partitions is fixed for it.
POLL_SECONDS = 0.1
# Without partitions to ask for there is nothing to wait on; an empty set would mean "all" to aiokafka.
IDLE_SECONDS = 0.05
MAX_RECORDS = 50_000
# A fetch answers with that much, or with what came in that time: at 34,000 events a second a poll of each few ms cost
# the worker 16.7 s of CPU a million, one of each 0.1 s 11.9.
FETCH_WAIT_MS = 100
FETCH_MIN_BYTES = 1 << 19


class PolledSchema(faust.Schema):
    """Keys and values pass as they are: a value is a ``Polled``, already out of bytes' reach."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:
        """The key as it came."""
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        """The value as it came."""
        return message.value


class NoTables(TableManager):
    """Faust waits a second at each start for tables to be made; there are none here."""

    async def on_start(self) -> None:
        """What follows that second."""
        await self._update_channels()
        await self.recovery.start()


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Ends the runs of all partitions at the very start of a rebalance, before anything else can be delivered."""

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Awaitable[Any]:
        """Called by aiokafka in the consumer's thread."""
        self._thread.runs.clear()  # type: ignore[attr-defined]
        return super().on_partitions_revoked(revoked)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Lets records through only for partitions that were started."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runs: dict[TP, Run] = {}

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        if not self._open():
            await asyncio.sleep(IDLE_SECONDS)
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            records = await drained(fetcher, self._open, POLL_SECONDS, max_records or MAX_RECORDS)
        # No await from the drain to here: each partition's run is still the one that it was drained for.
        return {
            tp: [polled]
            for tp, found in records.items()
            if (polled := _polled(self.runs[tp], found)) is not None  # only markers, or aborted
        }

    def _open(self) -> set[Any]:
        """Partitions of which a poll would reach the sink.

        Faust drops without a word what comes for a partition that it pauses, or while its streams are suspended: on a
        worker's first assignment both last until after the sinks were told of it, while its consumer's flow is on.
        """
        consumer = self.consumer
        if not (consumer.flow_active and self.app.flow_control.is_active()):
            return set()
        # As one step each: the main thread changes these sets.
        passing = (consumer._active_partitions or set()) | consumer._buffered_partitions
        return {tp for tp, run in self.runs.items() if run.open and tp in passing}

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads uncommitted unless it writes transactions itself; what a producer aborted was never sent.
        consumer._isolation_level = "read_committed"
        # One fetch is on its way to a broker at a time, and one that asks only for partitions where nothing happens
        # holds up all that were drained or sought meanwhile: 1.5 s by Faust's setting.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_min_bytes = FETCH_MIN_BYTES
        return consumer

    async def start_run(self, run: Run) -> None:
        """Deliver its partition from its position on.

        :raises aiokafka.errors.IllegalStateError: where it is not assigned (any more).
        """
        await self.call_thread(self._start_run, run)

    async def _start_run(self, run: Run) -> None:
        tp = TP(run.topic, run.partition)
        self._ensure_consumer().seek(driver.ensure_aiokafka_TP(tp), run.position)
        self.runs[tp] = run


def _polled(run: Run, records: Drained) -> Polled | None:
    if records.start != run.fetched:
        # The fetcher jumped: the log no longer has (or never had) what was asked for, and Kafka's client went on at
        # the log's start. The chain of polls must show it.
        run.position = records.start
    run.fetched = records.stop
    if not records.offsets:
        return None
    polled = Polled(
        run=run,
        expected=run.position,
        values=records.values,
        keys=records.keys,
        content_types=records.content_types,
        offsets=records.offsets,
        arrived=records.arrived,
        bytes=sum(map(len, filter(None, records.values))),
    )
    run.position = polled.last + 1
    return polled


class Consumer(driver.Consumer):
    """One Faust message a poll; seeking and gaps are not Faust's business here."""

    RebalanceListener = RebalanceListener
    _thread: ConsumerThread  # pyright: ignore[reportIncompatibleVariableOverride]

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def start_run(self, run: Run) -> None:
        """Deliver a partition from that position on."""
        await self._thread.start_run(run)

    async def advise(self, positions: dict[tuple[str, int], int]) -> None:
        """Commit positions to Kafka, as advice for lag tools; nothing of ours reads them."""
        await self._thread.commit(
            {TP(topic, partition): position for (topic, partition), position in positions.items()}
        )

    async def perform_seek(self) -> None:
        """Nothing: a partition is sought when it is started, at the ledger's position."""

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        records = await super()._getmany(active_partitions, timeout)
        for tp in records:
            self._read_offset.pop(tp, None)  # a stale one drops what comes after a seek back
        return records

    def _to_message(self, tp: Any, record: Polled) -> Any:
        return driver.ConsumerMessage(
            tp.topic,
            tp.partition,
            record.last,
            record.arrived[-1] / 1000,
            1,
            [],
            None,
            record,  # pyright: ignore[reportArgumentType]
            None,
            0,
            record.bytes,
            tp,
            generation_id=self.app.consumer_generation_id,
        )


class Transport(driver.Transport):
    """Set as ``app.transport``."""

    Consumer = Consumer
