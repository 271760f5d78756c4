"""Nothing lost, nothing twice, whatever dies or sleeps: real workers, broker and engine, under live sending."""

import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import psutil
import pytest
from clickhouse_connect.driver.client import Client

from pipelines.feed.producer import Producer
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, signal_group, sweep, wait_until
from pipelines.migrate import migrate
from pipelines.topics import create_topics
from schemas.events import TOKENS
from schemas.settings import Settings
from tests.e2e.parts import worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GROUP_TIMEOUT_SECONDS = 2.0
BATCH = 400


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    home = tmp_path_factory.mktemp("crashes")
    settings = made(home)
    with (
        EmbeddedKafka(home, settings.port("kafka"), settings.port("controller")),
        EmbeddedClickHouse(home, settings.port("clickhouse")) as engine,
    ):
        create_topics(settings)
        migrate(settings)
        yield engine
    sweep(home)


PORTS = free_ports(20)


def made(home: object) -> Settings:
    return Settings(
        home=home,  # pyright: ignore[reportArgumentType]
        port_base=PORTS,
        flush_seconds=0.2,
        group_timeout_seconds=GROUP_TIMEOUT_SECONDS,
        clickhouse_timeout_seconds=20,
    )


@pytest.fixture(scope="module")
def settings(clickhouse: EmbeddedClickHouse) -> Settings:
    return made(clickhouse.home)


def requests(run: str, first: int, count: int) -> pl.DataFrame:
    """Requests of eight gateways, so of both partitions, over four months, so that one flush writes several parts."""
    numbers = range(first, first + count)
    start = datetime(2025, 9, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "time": [start + timedelta(days=i * 7 % 120, seconds=i % 3600) for i in numbers],
            "source": [f"{run}-{i % 8}" for i in numbers],
            "id": [str(i) for i in numbers],
            "gateway": [run] * count,
            "input_tokens": [i % 1000 for i in numbers],
        }
    )


class Sending:
    """Sends all the time, in a thread, until it is left; ``sent`` events were acknowledged then."""

    def __init__(self, settings: Settings, run: str) -> None:
        self._settings = settings
        self._run = run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent = 0

    def __enter__(self) -> "Sending":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _send(self) -> None:
        with Producer(self._settings, f"crash-{self._run}") as producer:
            while not self._stop.wait(0.05):
                producer.send(TOKENS, requests(self._run, self.sent, BATCH), "array", rows_per_message=20)
                self.sent += BATCH
            producer.flush(60)


def counts(viewer: Client, run: str) -> tuple[int, int, int, int, int]:
    """Rows, distinct identities and tokens of raw; samples and tokens of the rollup."""
    parameters = {"run": run}
    raw = viewer.query(
        "SELECT count(), uniqExact(identity), sum(input_tokens) FROM tokens WHERE gateway = {run:String}",
        parameters=parameters,
    ).result_rows[0]
    rollup = viewer.query(
        "SELECT sum(samples), sum(input_tokens) FROM tokens_1m WHERE gateway = {run:String}", parameters=parameters
    ).result_rows[0]
    return (*raw, *rollup)


def assert_all_there_once(settings: Settings, run: str, sent: int, seconds: float = 90) -> None:
    tokens = sum(i % 1000 for i in range(sent))
    expected = (sent, sent, tokens, sent, tokens)
    viewer = settings.clickhouse_client("viewer")
    wait_until(lambda: counts(viewer, run)[3] >= sent, seconds, f"{run}: {sent} events are not all there", 0.2)
    assert counts(viewer, run) == expected
    ranges = viewer.query(
        "SELECT topic, topic_partition, sum(last - first + 1) = max(last) + 1 - min(first), min(first) = 0, "
        "sum(events) = sum(rows + duplicates + rejects), sum(duplicates) + sum(rejects) FROM ingest_ranges GROUP BY ALL"
    ).result_rows
    assert ranges
    assert all(row[2:] == (True, True, True, 0) for row in ranges), ranges
    viewer.close()


def test_kill_9_of_workers_and_clickhouse_under_load_loses_nothing_and_doubles_nothing(
    settings: Settings, clickhouse: EmbeddedClickHouse
) -> None:
    with worker(settings, 1) as one, worker(settings, 2) as two, Sending(settings, "kills") as sending:
        for victim in (one, clickhouse, two, one):
            seen = sending.sent
            wait_until(lambda seen=seen: sending.sent >= seen + 5 * BATCH, 60, "nothing is sent")
            victim.kill()
            victim.start()
        sending.__exit__()
        assert_all_there_once(settings, "kills", sending.sent)


@pytest.mark.parametrize("point", ["before-raw", "before-rollups", "before-done"])
def test_a_death_between_two_steps_of_a_flush_is_made_good(settings: Settings, point: str) -> None:
    part = worker(settings, failpoint=f"{point}:kill")
    part.prepare()
    process = part.launch()
    with Producer(settings, point) as producer:
        producer.send(TOKENS, requests(point, 0, 3000), "array", rows_per_message=100)
        producer.flush(60)
    assert process.wait(60) == -signal.SIGKILL
    with worker(settings):
        with Producer(settings, f"{point}-more") as producer:
            producer.send(TOKENS, requests(point, 3000, 500), "array", rows_per_message=100)
        assert_all_there_once(settings, point, 3500)


@pytest.mark.parametrize("point", ["before-raw", "before-rollups"])
def test_a_worker_that_slept_through_its_loss_writes_nothing_when_it_wakes(settings: Settings, point: str) -> None:
    run = f"sleeps-{point}"
    sleeper = worker(settings, 1, failpoint=f"{point}:stop")
    sleeper.prepare()
    process = sleeper.launch()
    with Producer(settings, run) as producer:
        producer.send(TOKENS, requests(run, 0, 3000), "array", rows_per_message=100)
        producer.flush(60)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 60, "it does not sleep")
    slept = time.monotonic()
    try:
        with worker(settings, 2):
            assert_all_there_once(settings, run, 3000)
            wait_until(lambda: time.monotonic() > slept + 3 * GROUP_TIMEOUT_SECONDS, 30, "time stands still")
            begin = sleeper.log.stat().st_size
            signal_group(process, signal.SIGCONT)
            wait_until(
                lambda: b"a higher claim exists" in sleeper.log.read_bytes()[begin:], 60, "the sleeper was not refused"
            )
            assert_all_there_once(settings, run, 3000)
    finally:
        signal_group(process, signal.SIGCONT)
        sleeper.stop()
