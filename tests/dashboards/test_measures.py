"""What the measures tell of a real engine's tables."""

from datetime import UTC, datetime, timedelta

import pytest
from clickhouse_connect.driver.client import Client

from dashboards import measures

HOUR = datetime(2026, 2, 1, 12, tzinfo=UTC)
CAPACITY = 1_000_000_000
"""Bits a second; every sample tells that half of it was used since the one before."""
MINUTE_STEP, HOUR_STEP = 60, 3600


@pytest.fixture
def links(client: Client) -> Client:
    for table in ("links_1m", "links_1h", "emitters"):
        client.command(f"TRUNCATE TABLE {table}")
    return client


def expect(client: Client, since: datetime, interval_seconds: int) -> None:
    row = {"topic": "links", "site": "a", "emitter": "a-z", "interval_seconds": interval_seconds, "since": since}
    client.insert("emitters", [list(row.values())], column_names=list(row))


def half_used(client: Client, begin: datetime, end: datetime, interval_seconds: int) -> None:
    """A sample at begin and after each interval until the end."""
    rows = []
    at = begin
    while at < end:
        half = CAPACITY // 8 * interval_seconds // 2
        rows.append([at.replace(second=0), "a-z", 1, half, half // 2, CAPACITY, 1, 99])
        at += timedelta(seconds=interval_seconds)
    names = ["minute", "link", "samples", "a_to_z_bytes", "z_to_a_bytes", "capacity_bits_per_second"]
    client.insert("links_1m", rows, column_names=[*names, "capacity_samples", "upto"])


def shares(client: Client, step: int) -> list[float]:
    """Of each bucket that tells something, in their order."""
    span = "start = toDateTime('2026-02-01 12:00:00', 'UTC'), stop = toDateTime('2026-02-01 14:00:00', 'UTC')"
    used = measures.link_use(f"{span}, step = {step}", fine=str(int(step < 3600)))
    told = client.query(f"SELECT {measures.LINK_SHARE} FROM ({used}) GROUP BY minute ORDER BY minute")
    return [row[0] for row in told.result_rows]


@pytest.mark.parametrize("step", [MINUTE_STEP, HOUR_STEP])
@pytest.mark.parametrize("interval", [10, 60, 900])
def test_a_sample_of_a_link_stands_for_its_interval(links: Client, interval: int, step: int) -> None:
    expect(links, HOUR - timedelta(days=1), interval)
    half_used(links, HOUR, HOUR + timedelta(hours=1), interval)
    assert shares(links, step) == pytest.approx([0.5] * len(shares(links, step)))
    assert len(shares(links, step)) == {HOUR_STEP: 1, MINUTE_STEP: min(60, 3600 // interval)}[step]


@pytest.mark.parametrize("step", [MINUTE_STEP, HOUR_STEP])
@pytest.mark.parametrize(("before", "after"), [(900, 10), (10, 900), (60, 10)])
@pytest.mark.parametrize("minute", [0, 1, 15, 30, 45.9])
def test_another_interval_makes_no_share_that_was_not(
    links: Client, before: int, after: int, minute: float, step: int
) -> None:
    """The last sample of the interval before is told in the minute in which the other begins."""
    change = HOUR + timedelta(minutes=minute)
    expect(links, HOUR - timedelta(days=1), before)
    expect(links, change, after)
    half_used(links, HOUR, change + timedelta(seconds=1), before)
    half_used(links, change + timedelta(seconds=after), HOUR + timedelta(hours=2), after)
    told = shares(links, step)
    assert told
    assert told == pytest.approx([0.5] * len(told), rel=0.05)


def test_a_running_hour_of_another_interval_is_told_by_what_came_so_far(links: Client) -> None:
    expect(links, HOUR - timedelta(days=1), 900)
    expect(links, HOUR + timedelta(minutes=1), 10)
    half_used(links, HOUR, HOUR + timedelta(minutes=1), 900)
    half_used(links, HOUR + timedelta(minutes=1), HOUR + timedelta(minutes=3), 10)
    assert shares(links, HOUR_STEP) == pytest.approx([0.5])


@pytest.mark.parametrize("step", [MINUTE_STEP, HOUR_STEP])
def test_a_link_that_nobody_registered_stands_for_its_whole_bucket(links: Client, step: int) -> None:
    half_used(links, HOUR, HOUR + timedelta(hours=1), 60)
    assert shares(links, step) == pytest.approx([0.5] * len(shares(links, step)))
