"""What the tables said at a time can be asked of the raw rows later, bit for bit, on a real broker and engine."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from confluent_kafka import Producer as KafkaProducer

from pipelines.feed.producer import Producer
from pipelines.local.processes import wait_until
from schemas.events import BY_NAME, EventType, Field
from schemas.identity import with_identity
from schemas.settings import Settings
from schemas.tables import ROLLUPS
from streams.inserts import Inserts
from streams.rollup import roll_up
from tests.e2e.parts import worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

START = datetime(2026, 1, 31, 23, 50, tzinfo=UTC)  # minutes of two months
WAVES = 3
EACH = 400
SWEEP_START = datetime(2024, 1, 20, tzinfo=UTC)
SWEEP = 100_000
SWEEP_SECONDS = 20
SWEEP_PARTITION = 900
TABLES = [(name, rollup) for name, rollups in ROLLUPS.items() for rollup in rollups]


@pytest.fixture(scope="module")
def settings(own_parts: Callable[..., Settings]) -> Settings:
    return own_parts("known", flush_seconds=0.2, group_timeout_seconds=2)


def edges() -> np.ndarray:
    """Microseconds at the edge of every latency bucket, and the nearest numbers on both sides of it."""
    below = above = edge = 2.0 ** (np.arange(174) / 4)
    found = [edge]
    for _ in range(3):
        below, above = np.nextafter(below, 0), np.nextafter(above, np.inf)
        found += [below, above]
    return np.concatenate(found)


def reals(field: Field, count: int, random: np.random.Generator) -> pl.Series:
    """Ties of every scale that the rollups round to, edges of buckets, anything between, and nothing."""
    low, high = field.low or 0.0, field.high or 1.0
    pools = [
        *((random.integers(0, 10**6, count) + 0.5) / scale for scale in (1e3, 1e6, 1e9)),
        random.choice(edges(), count) / 1e6,
        random.uniform(low, high, count),
        10 ** random.uniform(-9, 9, count) * random.choice([-1, 1], count),
    ]
    values = np.clip(np.choose(random.integers(0, len(pools), count), pools), low, high)
    return pl.Series(np.where(random.random(count) < 0.1, np.nan, values), nan_to_null=True)


def events(event_type: EventType, times: pl.Series, seed: int) -> pl.DataFrame:
    """Arbitrary possible events at these times, of few groups."""
    random, count = np.random.default_rng(seed), len(times)
    columns: dict[str, pl.Series] = {}
    for field in event_type.fields:
        if field.kind == "time":
            column = times
        elif field.kind == "text":
            column = pl.Series(random.choice(["a", "b"], count))
        elif field.kind == "real":
            column = reals(field, count, random)
        elif field.default is not None:
            column = pl.Series(random.integers(1, 9, count))
        else:
            column = pl.Series(random.integers(0, 10**12, count).astype(float), strict=False)
            column = column.set(pl.Series(random.random(count) < 0.2), None)
        columns[field.column] = column.cast(field.polars)
    frame = pl.DataFrame(columns)
    if "id" in frame.columns:
        frame = frame.with_columns(id=pl.format("{}-{}", pl.lit(seed), pl.int_range(count)))
    frame = frame.with_columns(pl.min_horizontal(part, whole).alias(part) for part, whole in event_type.part_of)
    return frame.filter(pl.any_horizontal(pl.col(c).is_not_null() for c in event_type.any_of or ("time",)))


def aggregated(client: Client, rollup: str, source: str) -> pl.DataFrame:
    """``source`` read as the rollup is: with GROUP BY on all of its keys, all columns but upto."""
    columns = client.query(
        "SELECT name, extract(type, '^SimpleAggregateFunction\\\\((\\\\w+),') FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} AND name != 'upto' ORDER BY position",
        parameters={"table": rollup},
    ).result_rows
    keys = ", ".join(name for name, function in columns if not function)
    # A NaN of the wrong bits, or -0.0, is told as well; a map and 128 bits are sent as text.
    values = ", ".join(f"toString({function}(r.{name})) AS {name}" for name, function in columns if function)
    arrow = client.query_arrow(f"SELECT {keys}, {values} FROM {source} AS r GROUP BY {keys} ORDER BY {keys}")
    return pl.DataFrame(pl.from_arrow(arrow))


def known(rollup: str, at: str, start: datetime, stop: datetime) -> str:
    span = f"start = '{start:%F %T}', stop = '{stop:%F %T}'"
    return f"{rollup}_known({span}, known = '{at}')"


def differing(one: pl.DataFrame, other: pl.DataFrame) -> dict[str, int]:
    """Rows that differ, by column."""
    assert one.columns == other.columns
    assert one.height == other.height
    counts = {name: int(one[name].ne_missing(other[name]).sum()) for name in one.columns}
    return {name: count for name, count in counts.items() if count}


@pytest.fixture(scope="module")
def sweep(settings: Settings, writer: Client) -> datetime:
    """Raw rows, and the rollups that the workers' code makes of them in two flushes; returns their end."""
    inserts = Inserts(writer)
    for name in ROLLUPS:
        seconds = pl.int_range(0, SWEEP * SWEEP_SECONDS, SWEEP_SECONDS, eager=True)
        times = (pl.lit(SWEEP_START) + pl.duration(seconds=seconds, nanoseconds=seconds)).cast(pl.Datetime("ns", "UTC"))
        frame = with_identity(BY_NAME[name], events(BY_NAME[name], pl.select(times).to_series(), 1)).with_columns(
            topic_partition=pl.lit(SWEEP_PARTITION, pl.UInt16),
            offset=pl.int_range(pl.len(), dtype=pl.Int64),
            place=pl.lit(0, pl.UInt32),
            arrived=pl.col("time").cast(pl.Datetime("ms", "UTC")) + timedelta(seconds=1),
        )
        inserts.run(name, frame)
        for last, flush in enumerate((frame.gather_every(2), frame.gather_every(2, 1))):
            for rollup, rows in roll_up(name, flush).items():
                inserts.run(rollup, rows.with_columns(upto=pl.lit(last, pl.Int64)))
    return SWEEP_START + timedelta(seconds=SWEEP * SWEEP_SECONDS)


@pytest.mark.parametrize(("name", "rollup"), TABLES)
def test_raw_rows_add_up_to_the_rollup_bit_for_bit_at_every_tie_and_edge_of_a_bucket(
    viewer: Client, sweep: datetime, name: str, rollup: str
) -> None:
    there = aggregated(viewer, rollup, f"(SELECT * FROM {rollup} WHERE topic_partition = {SWEEP_PARTITION})")
    assert there.height > SWEEP / 4
    assert differing(aggregated(viewer, rollup, known(rollup, "2024-12-31", SWEEP_START, sweep)), there) == {}


@pytest.mark.parametrize(("name", "rollup"), TABLES)
def test_it_is_aggregated_already_and_has_the_columns_and_types_of_the_rollup(
    viewer: Client, sweep: datetime, name: str, rollup: str
) -> None:
    view = known(rollup, "2024-12-31", SWEEP_START, sweep)
    described = viewer.query(f"DESCRIBE (SELECT * FROM {view})").result_rows
    bare = (
        "SELECT name, replaceRegexpOne(type, '^SimpleAggregateFunction.\\\\w+, (.*).$', '\\\\1') FROM system.columns "
    )
    there = viewer.query(bare + f"WHERE table = '{rollup}' AND database = 'wattstream' AND name != 'upto'").result_rows
    assert {(name, kind) for name, kind, *_ in described} == set(there)
    (rows,) = viewer.query(f"SELECT count() FROM {view}").result_rows[0]
    assert rows == aggregated(viewer, rollup, view).height


@pytest.mark.parametrize(("name", "rollup"), TABLES)
def test_a_day_is_read_without_the_rest_of_raw(viewer: Client, sweep: datetime, name: str, rollup: str) -> None:
    day = datetime(2024, 2, 5, tzinfo=UTC)
    view = known(rollup, "2024-12-31", day, day + timedelta(days=1))
    plan = "\n".join(line for (line,) in viewer.query(f"EXPLAIN indexes = 1 SELECT * FROM {view}").result_rows)
    granules = [(int(read), int(all_)) for read, all_ in re.findall(r"Granules: (\d+)/(\d+)", plan)]
    read, all_ = granules[-1][0], granules[0][1]
    assert all_ >= SWEEP // 8192
    assert read <= 2, plan


@pytest.fixture(scope="module")
def saved(settings: Settings, viewer: Client, meanwhile: Any) -> dict[str, dict[str, pl.DataFrame]]:
    """By the time of each wave, what each rollup said then: the later waves are of the same minutes as the first.

    Asked all the while, no view takes a flush of which raw or rollup lacks a part for rows that have expired.
    """
    reader = settings.clickhouse_client("viewer")

    def ask() -> None:
        for _, rollup in TABLES:
            reader.query(f"SELECT sum(samples) FROM {known(rollup, '2100-01-01', START, START + timedelta(hours=1))}")

    told: dict[str, dict[str, pl.DataFrame]] = {}
    broken = KafkaProducer(settings.kafka_client())
    sent: dict[str, pl.DataFrame] = {}
    with (
        worker(settings),
        Producer(settings, "waves") as producer,
        meanwhile(ask, 0.01),
    ):
        for wave in range(WAVES):
            for name in ROLLUPS:
                broken.produce(BY_NAME[name].topic, b"no event", b"key")
            assert broken.flush(20) == 0
            for name in ROLLUPS:
                seconds = np.random.default_rng(wave).permutation(3 * EACH)[:EACH]
                times = START + pl.Series(seconds).cast(pl.Duration("ms")) * 1000 + timedelta(milliseconds=wave)
                frame = events(BY_NAME[name], times.cast(pl.Datetime("ns", "UTC")), wave)
                producer.send(BY_NAME[name], frame, "arrow", rows_per_message=50)
                if name in sent:  # seen before
                    producer.send(BY_NAME[name], sent[name].head(100), "array", rows_per_message=50)
                sent[name] = frame
            producer.flush()
            wait_until(lambda: caught_up(viewer, producer), 60, "the worker does not catch up", 0.1)
            at = viewer.query("SELECT toString(max(arrived)) FROM ingest_ranges").result_rows[0][0]
            told[at] = {
                rollup: aggregated(viewer, rollup, f"(SELECT * FROM {rollup} WHERE minute >= '2026-01-01')")
                for _, rollup in TABLES
            }
            wait_until(lambda at=at: later(viewer, at), 5, "the clock stands still", 0.01)
    reader.close()
    return told


def caught_up(client: Client, producer: Producer) -> bool:
    rows = client.query("SELECT topic, topic_partition, max(last) FROM ingest_ranges GROUP BY ALL").result_rows
    done = {(topic, partition): last for topic, partition, last in rows}
    return all(done.get(where, -1) >= span.last for where, span in producer.spans.items())


def later(client: Client, at: str) -> bool:
    return client.query(f"SELECT now64(3, 'UTC') > toDateTime64('{at}', 3, 'UTC')").result_rows[0][0]


@pytest.mark.parametrize(("name", "rollup"), TABLES)
def test_each_rollup_is_told_as_it_was_at_the_time_of_each_wave(
    viewer: Client, saved: dict[str, dict[str, pl.DataFrame]], name: str, rollup: str
) -> None:
    samples = [tables[rollup]["samples"].cast(pl.Int64).sum() for tables in saved.values()]
    assert 0 < samples[0] < samples[1] < samples[2]
    for at, tables in saved.items():
        asked = aggregated(viewer, rollup, known(rollup, at, START, START + timedelta(hours=1)))
        assert differing(asked, tables[rollup]) == {}


def test_before_the_first_arrival_nothing_is_known(viewer: Client, saved: dict[str, dict[str, pl.DataFrame]]) -> None:
    for _, rollup in TABLES:
        view = known(rollup, "2026-02-01", START, START + timedelta(hours=1))
        assert viewer.query(f"SELECT count() FROM {view}").result_rows == [(0,)]


@pytest.mark.parametrize(("name", "rollup"), TABLES)
def test_minutes_of_which_raw_rows_have_expired_are_refused(
    writer: Client, viewer: Client, sweep: datetime, name: str, rollup: str
) -> None:
    day = SWEEP_START + timedelta(days=1)
    writer.command(f"DELETE FROM {name} WHERE arrived < '{day:%F %T}'")
    with pytest.raises(DatabaseError, match=f"expired.*Ask for later minutes, or {rollup} for"):
        viewer.query(f"SELECT count() FROM {known(rollup, '2024-12-31', SWEEP_START, sweep)}")
    with pytest.raises(DatabaseError, match="expired"):  # nothing at all is left of these
        viewer.query(f"SELECT count() FROM {known(rollup, '2024-12-31', SWEEP_START, day - timedelta(minutes=9))}")
    assert viewer.query(f"SELECT count() > 0 FROM {known(rollup, '2024-12-31', day, sweep)}").result_rows == [(True,)]
