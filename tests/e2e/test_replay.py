"""The tables made anew from the log beside those that serve, and put in their place, on a real broker and engine."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer as KafkaProducer

from pipelines.feed.producer import Producer
from pipelines.local.parts import SettingsPart
from pipelines.local.processes import wait_until
from pipelines.replay.swap import TABLES, alone
from pipelines.verify import verify
from schemas.events import POWER, TOKENS
from schemas.settings import Settings
from tests.e2e.parts import wattstream, worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

QUERIES = 1_000
PAUSE_SECONDS = 0.02
"""Between them: without, they take a core, and the tests beside this one wait."""
BATCH = 500


@pytest.fixture(scope="module")
def settings(own_parts: Callable[..., Settings]) -> Settings:
    return own_parts("replay", flush_seconds=0.2, group_timeout_seconds=2)


def replay(settings: Settings, *words: str, failpoint: str = "") -> subprocess.CompletedProcess[bytes]:
    return wattstream(settings, "replay", "--json", *words, failpoint=failpoint)


def requests(first: int, count: int) -> pl.DataFrame:
    """Requests of four gateways; some a year late, and every twentieth as one that came before."""
    number = pl.int_range(first, first + count)
    start = datetime(2026, 1, 31, 23, 50, tzinfo=UTC)
    return pl.DataFrame({"id": [f"r{i - i % 20 // 19}" for i in range(first, first + count)]}).with_columns(
        time=(
            pl.lit(start)
            + pl.duration(milliseconds=100) * (number - number % 20 // 19)
            - pl.when(number % 50 < 2).then(pl.duration(days=365)).otherwise(pl.duration())
        ).cast(pl.Datetime("ns", "UTC")),
        source=pl.format("gateway-{}", (number - number % 20 // 19) % 4),
        gateway=pl.format("gateway-{}", number % 4),
        model=pl.lit("m"),
        input_tokens=number % 1009,
        duration_seconds=(number % 77).cast(pl.Float64) / 7,
    )


def readings(count: int) -> pl.DataFrame:
    number = pl.int_range(count)
    return pl.DataFrame({"meter": [f"m{i % 5}" for i in range(count)]}).with_columns(
        time=(pl.lit(datetime(2026, 2, 1, tzinfo=UTC)) + pl.duration(seconds=number)).cast(pl.Datetime("ns", "UTC")),
        site=pl.lit("campus-a"),
        role=pl.lit("rack"),
        watts=number.cast(pl.Float64) / 3,
        joules=(number * 5).cast(pl.Float64),
    )


class Live:
    """Sends while it is told to."""

    def __init__(self, settings: Settings, meanwhile: Any) -> None:
        self._settings = settings
        self._meanwhile = meanwhile
        self.sent = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        with Producer(self._settings, "live") as producer:

            def send() -> None:
                producer.send(TOKENS, requests(self.sent, BATCH), "array", rows_per_message=50)
                self.sent += BATCH

            with self._meanwhile(send, 0.5):
                yield


@pytest.fixture(scope="module")
def running(settings: Settings) -> Iterator[SettingsPart]:
    with worker(settings) as part:
        yield part


@pytest.fixture(scope="module")
def live(settings: Settings, writer: Client, running: SettingsPart, meanwhile: Any) -> Live:
    """The tables hold rows, duplicates, late events and dead letters."""
    with Producer(settings, "readings") as producer:
        producer.send(POWER, readings(3_000), "arrow")
    raw = KafkaProducer(settings.kafka_client())
    for value in (b"no event", None, b"[7]"):
        raw.produce(TOKENS.topic, value, b"gw")
    assert raw.flush(20) == 0
    sending = Live(settings, meanwhile)
    with sending.sending():
        wait_until(lambda: rows(writer, "tokens") > 10 * BATCH, 120, "nothing arrives", 0.2)
    return sending


def rows(client: Client, table: str) -> int:
    return client.query(f"SELECT count() FROM {table}").result_rows[0][0]


def done(client: Client) -> int:
    return client.query("SELECT sum(messages) FROM ingest_ranges").result_rows[0][0]


@contextmanager
def asking(settings: Settings, meanwhile: Any) -> Iterator[list[int]]:
    """A reader that asks again and again, at least ``QUERIES`` times; raises what a query raised."""
    seen: list[int] = []
    client = settings.clickhouse_client("viewer")
    query = "SELECT (SELECT count() FROM tokens), (SELECT sum(samples) FROM tokens_1m)"
    with meanwhile(lambda: seen.append(client.query(query).result_rows[0][0]), PAUSE_SECONDS):
        yield seen
        wait_until(lambda: len(seen) >= QUERIES, 300, "the reader has stopped")
    client.close()


def test_a_replay_under_live_load_makes_the_same_tables(settings: Settings, writer: Client, live: Live) -> None:
    with live.sending():
        told = replay(settings)
    report = json.loads(told.stdout)
    assert told.returncode == 0, report
    assert report["swapped"] is False
    tables = {table["table"]: table for table in report["tables"]}
    assert all(table["same"] for table in tables.values())
    assert tables["tokens"]["rows"] == tables["tokens"]["replayed"] >= 9 * BATCH
    assert tables["power"]["rows"] == tables["power_1m"]["rows"] * 12 == 3_000
    assert rows(writer, "wattstream_replay.deadletters") == 3


def test_what_differs_is_named_and_not_swapped(settings: Settings, writer: Client, live: Live) -> None:
    writer.command("INSERT INTO wattstream_replay.power SELECT * FROM wattstream_replay.power LIMIT 1")
    told = replay(settings, "--swap")
    assert told.returncode == 1
    assert b"power: partition" in told.stderr
    assert b"--accept-differences" in told.stderr
    assert writer.query("SELECT count() FROM swaps").result_rows == [(0,)]


@pytest.mark.timeout(900)
def test_a_swap_under_live_load_killed_again_and_again_is_resumed_and_no_query_fails(
    settings: Settings, writer: Client, live: Live, meanwhile: Any
) -> None:
    before = {table: identity(writer, "wattstream", table) for table in TABLES}
    with asking(settings, meanwhile) as seen, live.sending():
        for point, *fresh in (
            ("before-exchange", "--fresh"),
            ("after-exchange-tokens",),
            ("after-exchange-ingest_ranges",),
        ):
            assert replay(settings, *fresh, "--swap", failpoint=f"{point}:kill").returncode == -signal.SIGKILL
        assert b"--swap" in replay(settings).stderr
        told = replay(settings, "--swap")
        assert told.returncode == 0, told.stderr.decode()
        assert json.loads(told.stdout)["swapped"] is True
        reached = done(writer)
        wait_until(lambda: done(writer) > reached, 120, "the worker does not go on", 0.2)
    assert seen == sorted(seen)
    assert all(identity(writer, "wattstream", table) != before[table] for table in TABLES)
    assert {identity(writer, "wattstream_replay", table) for table in TABLES} == set(before.values())
    report = verify(settings)
    assert report.holds, report.differences
    assert report.pending == 0
    assert report.by_topic[TOKENS.topic].events == live.sent * 19 // 20 + 3


def test_tables_that_served_before_are_not_filled_again(settings: Settings, live: Live) -> None:
    told = replay(settings)
    assert told.returncode == 1
    assert b"--fresh" in told.stderr


def test_a_second_replay_beside_one_is_refused(settings: Settings, live: Live) -> None:
    with alone(settings):
        assert b"Another replay" in replay(settings, "--swap").stderr


def test_a_name_that_is_not_ours_is_refused(settings: Settings) -> None:
    assert replay(settings, "--into", "default").returncode == 2


def identity(client: Client, database: str, table: str) -> str:
    parameters = {"database": database, "table": table}
    query = "SELECT uuid FROM system.tables WHERE database = {database:String} AND name = {table:String}"
    return str(client.query(query, parameters=parameters).result_rows[0][0])
