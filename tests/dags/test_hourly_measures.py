"""Hourly tables of what looks at minutes and emitters: made anew where those change, and right for readers at once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from dags import hourly
from dags.clickhouse import Warehouse
from dags.hourly_measures import refresh
from pipelines.local.processes import wait_until
from tests.dags.synthetic_network import power_rows

DAY = datetime(2026, 2, 1, tzinfo=UTC)
FIRST, SECOND, THIRD = (DAY.date() + timedelta(days=n) for n in range(3))
RANGE = "start = '2026-01-31 00:00:00', stop = '2026-02-04 00:00:00'"


@pytest.fixture
def minutes(client: Client) -> Client:
    """Three days of two meters that are read every quarter of an hour, as they are expected to be."""
    for table in ("power_1m", "power_1h", "energy_1h", "site_energy_1h", "completeness_1h", "emitters"):
        client.command(f"TRUNCATE TABLE {table}")
    for role in ("it", "utility"):
        client.insert_arrow("power_1m", power_rows("guian-1", role, np.arange(72) + 1000.0, DAY).to_arrow())
        expect(client, role, DAY)
    a_second_after(client, "SELECT toUnixTimestamp(max(registered)) FROM emitters")
    return client


def a_second_after(client: Client, query: str) -> None:
    """Parts of tables tell their time in whole seconds."""
    begun = client.command(query)
    wait_until(lambda: client.command("SELECT toUnixTimestamp(now())") > begun, 5, "the clock stands still")


def expect(
    client: Client, meter: str, since: datetime, until: datetime = DAY + timedelta(days=3), interval_seconds: int = 900
) -> None:
    row = {"topic": "power", "site": "guian-1", "emitter": meter, "interval_seconds": interval_seconds}
    row |= {"since": since, "until": until}
    client.insert("emitters", [list(row.values())], column_names=list(row))


def late(client: Client, at: datetime, milliwatts: int, samples: int = 1) -> None:
    row = {"minute": at, "site": "guian-1", "meter": "it", "role": "it", "samples": samples}
    row |= {"power_samples": samples, "milliwatts": milliwatts, "upto": 99}
    client.insert("power_1m", [list(row.values())], column_names=list(row))


def told(client: Client, query: str, step: int) -> list[tuple[float, ...]]:
    return client.query(query.replace("RANGE", f"{RANGE}, step = {step}")).result_rows


SUMS = [
    "SELECT round(sum(joules)), sum(seconds) FROM energy_in_steps(RANGE)",
    "SELECT round(sum(matched_facility_joules)), round(sum(matched_it_joules)), max(utility_watts_max), "
    "round(sum(utility_watts)), sum(utility_minutes) FROM site_energy_in_steps(RANGE)",
    "SELECT sum(heard), sum(expected) FROM completeness_in_steps(RANGE)",
    "SELECT peak_watts, round(mean_watts, 6) FROM site_headroom_in_steps(RANGE) WHERE site = 'guian-1'",
    "SELECT sum(samples), sum(milliwatts), max(watts_max) FROM power_in_steps(RANGE)",
]


@pytest.fixture
def refreshed(minutes: Client, warehouse: Warehouse) -> Callable[[], dict[str, list[object]]]:
    def run() -> dict[str, list[object]]:
        hourly.refresh(warehouse, "power_1h")
        return {hours: list(refresh(warehouse, hours)) for hours in ("energy_1h", "site_energy_1h", "completeness_1h")}

    return run


def test_a_long_step_tells_the_same_as_a_short_one(minutes: Client, refreshed: Callable[[], object]) -> None:
    by_minute = [told(minutes, query, 60) for query in SUMS]
    assert all(rows and None not in rows[0] for rows in by_minute)
    assert [told(minutes, query, 3600) for query in SUMS] == by_minute, "before any hour is made"
    refreshed()
    assert [told(minutes, query, 3600) for query in SUMS] == by_minute


def test_nothing_is_told_from_before_a_range_within_a_day(minutes: Client, refreshed: Callable[[], object]) -> None:
    def hours() -> list[tuple[object, ...]]:
        within = "start = '2026-02-02 10:20:00', stop = '2026-02-02 15:00:00', step = 3600"
        views = ("energy_in_steps", "site_energy_in_steps", "completeness_in_steps")
        told = "toString(min(toStartOfHour(minute))), max(minute) < '2026-02-02 15:00:00'"
        return [minutes.query(f"SELECT {told} FROM {view}({within})").result_rows[0] for view in views]

    expected = [("2026-02-02 10:00:00", 1)] * 3
    assert hours() == expected, "a day that is open"
    refreshed()
    assert hours() == expected


def test_whole_days_are_read_by_the_hour(minutes: Client, refreshed: Callable[[], object]) -> None:
    refreshed()
    minutes.command("ALTER TABLE energy_1h UPDATE joules = 1 WHERE 1 SETTINGS mutations_sync = 2")
    assert told(minutes, SUMS[0], 3600) == [(24.0 * 3 * 2, 3 * 86_400 * 2)]
    assert told(minutes, SUMS[0], 3599)[0][0] > 1e8


def test_a_second_run_makes_nothing_anew(refreshed: Callable[[], dict[str, list[object]]]) -> None:
    assert list(refreshed().values()) == [[FIRST, SECOND, THIRD]] * 3
    assert list(refreshed().values()) == [[]] * 3


def test_a_late_event_is_seen_at_once_and_its_day_made_anew_with_those_beside_it(
    minutes: Client, refreshed: Callable[[], dict[str, list[object]]]
) -> None:
    refreshed()
    late(minutes, DAY + timedelta(hours=3, minutes=7), 9_000_000_000)
    by_minute = [told(minutes, query, 60) for query in SUMS]
    assert [told(minutes, query, 3600) for query in SUMS] == by_minute
    assert refreshed()["energy_1h"] == [FIRST, SECOND]
    assert [told(minutes, query, 3600) for query in SUMS] == by_minute


def test_a_mended_difference_makes_its_day_anew_though_it_brings_no_sample(
    minutes: Client, refreshed: Callable[[], dict[str, list[object]]]
) -> None:
    refreshed()
    a_second_after(
        minutes, "SELECT toUnixTimestamp(max(modification_time)) FROM system.parts WHERE table = 'energy_1h'"
    )
    late(minutes, DAY + timedelta(hours=3), 5_000_000_000, samples=0)
    assert FIRST in refreshed()["energy_1h"]
    assert told(minutes, SUMS[0], 3600) == told(minutes, SUMS[0], 60)


def test_who_is_expected_later_counts_in_the_days_that_were_made(
    minutes: Client, refreshed: Callable[[], dict[str, list[object]]]
) -> None:
    refreshed()
    expect(minutes, "forgotten", DAY + timedelta(days=1, hours=5, seconds=20), DAY + timedelta(days=2))
    assert refreshed()["completeness_1h"] == [FIRST, SECOND, THIRD]
    assert told(minutes, SUMS[2], 3600) == told(minutes, SUMS[2], 60)


def test_another_interval_makes_its_days_anew(minutes: Client, refreshed: Callable[[], object]) -> None:
    refreshed()
    before = told(minutes, SUMS[0], 3600)
    expect(minutes, "it", DAY, interval_seconds=300)
    refreshed()
    assert told(minutes, SUMS[0], 3600) == told(minutes, SUMS[0], 60) != before


def test_a_day_of_silence_is_told_as_silence(minutes: Client, refreshed: Callable[[], dict[str, list[object]]]) -> None:
    expect(minutes, "mute", DAY - timedelta(days=1), DAY)
    assert FIRST - timedelta(days=1) in refreshed()["completeness_1h"]
    assert told(minutes, SUMS[2], 3600) == told(minutes, SUMS[2], 60)
