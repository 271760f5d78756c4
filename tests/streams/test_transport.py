"""The transport on a real broker: one message a partition and poll, from positions of our own, and nothing else."""

import asyncio
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import faust
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]
from faust.types import TP
from yarl import URL

from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.processes import free_ports
from pipelines.topics import wait_for_leaders
from streams.polled import Polled, Run
from streams.transport import PolledSchema, Transport
from tests import headers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedKafka(tmp_path_factory.mktemp("transport"), free_ports(2)) as kafka:
        yield kafka.bootstrap


class Reading:
    """A Faust worker in this process that reads one topic of two partitions, and keeps what it is handed."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.topic = f"t{uuid.uuid4().hex}"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_topics([NewTopic(self.topic, 2, 1)])[self.topic].result()
        wait_for_leaders({"bootstrap.servers": bootstrap}, (TopicPartition(self.topic, number) for number in range(2)))
        self.polls: list[Polled] = []
        brokers = [URL(f"kafka://{bootstrap}")]
        self.app = faust.App(
            f"app-{self.topic}",
            datadir=tempfile.mkdtemp(),
            broker=brokers,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            consumer_auto_offset_reset="earliest",
        )
        self.app.transport = Transport(brokers, self.app)
        channel = self.app.topic(self.topic, schema=PolledSchema(), acks=False)

        @self.app.agent(channel, concurrency=1)
        async def read(stream: object) -> None:
            async for polled in stream:  # type: ignore[attr-defined]
                self.polls.append(polled)

    def send(self, partition: int, values: list[bytes], transaction: str = "", **config: object) -> None:
        """Send values; ``transaction``: commit or abort."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20} | config)
        if transaction:
            producer.init_transactions(30)
            producer.begin_transaction()
        for value in values:
            producer.produce(self.topic, value, partition=partition, headers=[("content-type", b"x"), ("more", b"y")])
        assert producer.flush(30) == 0
        if transaction:
            getattr(producer, f"{transaction}_transaction")(30)

    def values(self, partition: int) -> list[bytes | None]:
        return [value for polled in self.polls if polled.run.partition == partition for value in polled.values]

    async def start(self, partition: int, position: int) -> object:
        run = Run(self.topic, partition, position)
        await self.app.consumer.start_run(run)  # type: ignore[attr-defined]
        return run

    async def assigned(self) -> None:
        wanted = {TP(self.topic, 0), TP(self.topic, 1)}
        await until(lambda: self.app.consumer is not None and wanted <= set(self.app.consumer.assignment()))
        await until(self.app.flow_control.is_active)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def play(bootstrap: str, script: Callable[[Reading], Awaitable[None]]) -> Reading:
    async def main() -> Reading:
        reading = Reading(bootstrap)
        reading.app.loop = asyncio.get_running_loop()
        await reading.app.start()
        try:
            await script(reading)
        finally:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reading.app.stop(), 20)
        return reading

    return asyncio.run(main())


def test_nothing_comes_before_a_start_and_from_then_on_all_from_its_position(bootstrap: str) -> None:
    values = [str(i).encode() for i in range(1000)]

    async def script(reading: Reading) -> None:
        reading.send(0, values)
        reading.send(1, values)
        await reading.assigned()
        run = await reading.start(1, 10)  # partition 0 has as much to read, and isn't started
        await until(lambda: len(reading.values(1)) == 990)
        assert reading.values(0) == []
        assert reading.values(1) == values[10:]
        assert {polled.run for polled in reading.polls} == {run}

    found = play(bootstrap, script)
    expected = 10
    for polled in found.polls:
        assert polled.expected == expected
        assert polled.content_types == [b"x"] * len(polled.values)
        assert polled.bytes == sum(len(value or b"") for value in polled.values)
        expected = polled.last + 1
    assert len(found.polls) < 100, "one message a poll, not one a record"


def test_a_new_start_seeks_back_and_the_old_run_is_silent(bootstrap: str) -> None:
    values = [str(i).encode() for i in range(200)]

    async def script(reading: Reading) -> None:
        reading.send(0, values)
        await reading.assigned()
        first = await reading.start(0, 0)
        await until(lambda: len(reading.values(0)) == 200)
        reading.polls.clear()
        second = await reading.start(0, 50)
        reading.send(0, [b"more"])
        await until(lambda: reading.values(0)[-1:] == [b"more"])
        assert reading.values(0) == [*values[50:], b"more"]
        assert {polled.run for polled in reading.polls} == {second} != {first}

    play(bootstrap, script)


@pytest.mark.parametrize("held_back", ["streams", "partition"])
def test_what_comes_while_faust_would_drop_it_waits_and_is_delivered(bootstrap: str, held_back: str) -> None:
    """As on a worker's first assignment, where its sinks are told before its streams are resumed."""

    async def script(reading: Reading) -> None:
        await reading.assigned()
        place, consumer = TP(reading.topic, 0), reading.app.consumer
        await reading.start(0, 0)
        flow = reading.app.flow_control
        flow.suspend() if held_back == "streams" else consumer.pause_partitions({place})
        reading.send(0, [b"a"])
        fetched = consumer._thread._ensure_consumer()._fetcher._records  # type: ignore[attr-defined]
        await until(lambda: any(tuple(tp) == tuple(place) for tp in list(fetched)))
        assert reading.values(0) == []
        flow.resume() if held_back == "streams" else consumer.resume_partitions({place})
        await until(lambda: reading.values(0) == [b"a"])

    play(bootstrap, script)


def test_a_closed_run_holds_back_its_partition_only_and_goes_on_when_opened(bootstrap: str) -> None:
    async def script(reading: Reading) -> None:
        await reading.assigned()
        held = await reading.start(0, 0)
        await reading.start(1, 0)
        held.open = False  # type: ignore[attr-defined]
        reading.send(0, [b"a"])
        reading.send(1, [b"b"])
        await until(lambda: reading.values(1) == [b"b"])
        reading.send(1, [b"c"])
        await until(lambda: reading.values(1) == [b"b", b"c"])
        assert reading.values(0) == []
        held.open = True  # type: ignore[attr-defined]
        await until(lambda: reading.values(0) == [b"a"])

    play(bootstrap, script)


def test_a_jump_of_kafkas_client_over_expired_records_is_a_break_in_the_chain(bootstrap: str) -> None:
    async def script(reading: Reading) -> None:
        reading.send(0, [str(i).encode() for i in range(100)])
        admin = AdminClient({"bootstrap.servers": bootstrap})
        where = TopicPartition(reading.topic, 0, 50)
        admin.delete_records([where])[where].result()
        await reading.assigned()
        await reading.start(0, 10)
        await until(lambda: bool(reading.polls))

    found = play(bootstrap, script)
    assert found.polls[0].expected == 50
    assert found.polls[0].offsets[0] == 50


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
def test_compressed_batches_are_read(bootstrap: str, compression: str) -> None:
    async def script(reading: Reading) -> None:
        reading.send(0, [b"v" * 100] * 50, **{"compression.type": compression})
        await reading.assigned()
        await reading.start(0, 0)
        await until(lambda: len(reading.values(0)) == 50)

    assert play(bootstrap, script).values(0) == [b"v" * 100] * 50


def test_a_headers_name_that_is_not_utf8_costs_its_message_the_headers_and_no_more(bootstrap: str) -> None:
    async def script(reading: Reading) -> None:
        reading.send(0, [b"before"])
        await asyncio.to_thread(headers.send, bootstrap, reading.topic, 0, [b"a", b"b", b"c"], odd=[1])
        reading.send(0, [b"after"])
        await reading.assigned()
        await reading.start(0, 0)
        await until(lambda: len(reading.values(0)) == 5)

    found = play(bootstrap, script)
    assert found.values(0) == [b"before", b"a", b"b", b"c", b"after"]
    json = b"application/json"
    assert [kind for polled in found.polls for kind in polled.content_types] == [b"x", json, None, json, b"x"]
    assert [offset for polled in found.polls for offset in polled.offsets] == list(range(5))


def test_an_aborted_transaction_is_not_read_and_leaves_no_break_in_the_chain(bootstrap: str) -> None:
    async def script(reading: Reading) -> None:
        reading.send(0, [b"a", b"b"], "commit", **{"transactional.id": reading.topic})
        reading.send(0, [b"never"], "abort", **{"transactional.id": reading.topic})
        await reading.assigned()
        await reading.start(0, 0)
        await until(lambda: reading.values(0) == [b"a", b"b"])
        reading.send(0, [b"c"], "commit", **{"transactional.id": reading.topic})
        await until(lambda: len(reading.values(0)) == 3)
        assert reading.values(0) == [b"a", b"b", b"c"]
        last = 0
        for polled in reading.polls:
            assert polled.expected == last
            last = polled.last + 1
        await reading.app.consumer.advise({(reading.topic, 0): last})  # type: ignore[attr-defined]

    play(bootstrap, script)
