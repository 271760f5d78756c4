"""Every token event of a live run sent twice, in another order, across kills: all tables are those of one sending."""

from collections.abc import Callable

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from pipelines.feed.producer import Producer
from pipelines.local.processes import wait_until
from pipelines.verify import verify
from schemas.events import TOKENS
from schemas.settings import Settings
from tests.e2e.parts import worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

EVENTS = 200_000
CHUNK = 10_000
# So many chunks of the first sending go ahead of the second; of these chunks of the second the worker is killed at.
AHEAD = 4
KILLS = (6, 13)
GATEWAYS = 7


def requests() -> pl.DataFrame:
    """Over three days about the end of a month; a third of the fields are unknown somewhere."""
    number = pl.int_range(EVENTS)
    return pl.select(
        id=pl.format("r{}", number),
        time=(pl.datetime(2026, 1, 30, 12, time_zone="UTC") + pl.duration(milliseconds=1) * (number * 1_297)).cast(
            pl.Datetime("ns", "UTC")
        ),
        gateway=pl.format("gateway-{}", number % GATEWAYS),
        source=pl.format("gateway-{}", number % GATEWAYS),
        site=pl.format("campus-{}", number % 3),
        tenant=pl.format("tenant-{}", number % 50),
        package=pl.format("package-{}", number % 70),
        provider=pl.lit("jiutian"),
        model=pl.format("model-{}", number % 11),
        input_tokens=pl.when(number % 13 > 0).then(number % 7_919),
        output_tokens=number % 1_021,
        duration_seconds=pl.when(number % 17 > 0).then((number % 4_001) / 1_000 + 0.01),
        error_type=pl.when(number % 101 == 0).then(pl.lit("timeout")).otherwise(pl.lit("")),
    )


def events_done(client: Client) -> int:
    return client.query("SELECT sum(events) FROM ingest_ranges").result_rows[0][0]


def until_done(client: Client, events: int) -> None:
    wait_until(lambda: events_done(client) == events, 120, f"{events:,} events were not read", interval=0.2)


def tables(client: Client) -> dict[str, pl.DataFrame]:
    """What readers see, but for what tells when and in which message it came."""
    found: dict[str, pl.DataFrame] = {}
    for table in ("tokens", "tokens_1m", "usage_1m"):
        columns = client.query(
            "SELECT name, extract(type, '^SimpleAggregateFunction\\\\((\\\\w+),') FROM system.columns "
            "WHERE database = currentDatabase() AND table = {table:String} "
            "AND name NOT IN ('offset', 'place', 'arrived', 'arrived_min', 'upto')",
            parameters={"table": table},
        ).result_rows
        keys = [name for name, function in columns if not function]
        values = [f"{function}({name}) AS {name}" for name, function in columns if function]
        by = f"GROUP BY {', '.join(keys)}" if values else ""
        result = client.query_arrow(f"SELECT {', '.join([*keys, *values])} FROM {table} {by} ORDER BY ALL")
        found[table] = pl.DataFrame(pl.from_arrow(result))
    return found


def test_every_event_sent_twice_in_another_order_across_kills_counts_once(own_parts: Callable[..., Settings]) -> None:
    first = requests()
    again = first.sample(fraction=1, shuffle=True, seed=1)
    chunks = range(0, EVENTS, CHUNK)

    once = own_parts("once", flush_seconds=0.2)
    with once.clickhouse_client("viewer") as client, worker(once), Producer(once, "once") as producer:
        for start in chunks:
            producer.send(TOKENS, first[start : start + CHUNK])
        until_done(client, EVENTS)
        wanted = tables(client)
    assert wanted["tokens"].height == EVENTS

    twice = own_parts("twice", flush_seconds=0.2, group_timeout_seconds=3)
    running = worker(twice)
    running.start()
    try:
        with twice.clickhouse_client("viewer") as client, Producer(twice, "twice") as producer:
            for number, start in enumerate([*chunks, *([None] * AHEAD)]):
                before = events_done(client)  # before the sending: all of it may be done soon after
                if start is not None:
                    producer.send(TOKENS, first[start : start + CHUNK])
                if number >= AHEAD:
                    behind = (number - AHEAD) * CHUNK
                    producer.send(TOKENS, again[behind : behind + CHUNK], encoding="array", rows_per_message=50)
                if number - AHEAD in KILLS:
                    wait_until(lambda: events_done(client) > before, 60, "the worker stands still", interval=0.02)  # noqa: B023
                    running.kill()
                    running.start()
            until_done(client, 2 * EVENTS)
            found = tables(client)
            rows, duplicates = client.query("SELECT sum(rows), sum(duplicates) FROM ingest_ranges").result_rows[0]
            deadletters = client.query("SELECT count() FROM deadletters").result_rows[0][0]
    finally:
        running.stop()
    assert (rows, duplicates, deadletters) == (EVENTS, EVENTS, 0)
    assert {name: frame.equals(wanted[name]) for name, frame in found.items()} == dict.fromkeys(wanted, True)
    report = verify(twice, wait=False)
    assert report.holds
    assert report.events == EVENTS
