"""Hourly tables equal the minutes they are made from, whatever happens to the minutes."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from dags.clickhouse import Warehouse
from dags.hourly import CoarserTable, refresh
from schemas.steps import time_of
from schemas.tables import COARSER
from tests.dags.synthetic_network import power_rows

DAY = datetime(2026, 2, 1, tzinfo=UTC)
FIRST, SECOND, THIRD = (DAY.date() + timedelta(days=n) for n in range(3))


@pytest.fixture
def minutes(client: Client) -> Client:
    """Three days of one meter, read every quarter of an hour."""
    client.command("TRUNCATE TABLE power_1m")
    client.command("TRUNCATE TABLE power_1h")
    client.insert_arrow("power_1m", power_rows("guian-1", "it", np.arange(72) + 1000.0, DAY).to_arrow())
    return client


def total(client: Client, table: str, column: str = "milliwatts") -> int:
    return int(client.command(f"SELECT sum({column}) FROM {table}"))


def late(client: Client, at: datetime, milliwatts: int, samples: int = 1, upto: int = 99) -> None:
    row = {
        "minute": at,
        "site": "guian-1",
        "meter": "it",
        "role": "it",
        "samples": samples,
        "power_samples": samples,
        "milliwatts": milliwatts,
        "upto": upto,
    }
    client.insert("power_1m", [list(row.values())], column_names=list(row))


def test_sums_minima_and_means_are_those_of_the_minutes(minutes: Client, warehouse: Warehouse):
    assert refresh(warehouse, "power_1h") == [FIRST, SECOND, THIRD]
    assert total(minutes, "power_1h") == total(minutes, "power_1m")
    row = minutes.query(
        "SELECT samples, milliwatts / power_samples / 1000, watts_min, watts_max FROM power_1h "
        "WHERE hour = '2026-02-01 05:00:00'"
    ).result_rows
    assert row == [(4, 1005.0, 1005.0, 1005.0)]


def test_a_second_run_rebuilds_nothing(minutes: Client, warehouse: Warehouse):
    refresh(warehouse, "power_1h")
    assert refresh(warehouse, "power_1h") == []


def test_merging_the_minutes_is_no_change(minutes: Client, warehouse: Warehouse):
    for partition in range(3):
        minutes.insert(
            "power_1m",
            [[DAY, "guian-1", "it", "it", partition, 1, 5]],
            column_names=["minute", "site", "meter", "role", "topic_partition", "samples", "milliwatts"],
        )
    refresh(warehouse, "power_1h")
    minutes.command("OPTIMIZE TABLE power_1m FINAL")
    assert refresh(warehouse, "power_1h") == []


def test_a_late_event_rebuilds_its_day_alone(minutes: Client, warehouse: Warehouse):
    refresh(warehouse, "power_1h")
    late(minutes, DAY + timedelta(days=1, hours=3), 7_000)
    assert refresh(warehouse, "power_1h") == [SECOND]
    assert total(minutes, "power_1h") == total(minutes, "power_1m")


def test_a_mended_difference_is_found_though_it_brings_no_sample(minutes: Client, warehouse: Warehouse):
    refresh(warehouse, "power_1h")
    late(minutes, DAY + timedelta(hours=3), -1, samples=0, upto=-1)
    assert refresh(warehouse, "power_1h") == [FIRST]


def test_amounts_moved_between_meters_or_hours_of_a_day_are_found(minutes: Client, warehouse: Warehouse):
    """The day's sums stay the same: only where they are counted changes."""
    refresh(warehouse, "power_1h")
    late(minutes, DAY + timedelta(hours=3), 5_000)
    late(minutes, DAY + timedelta(hours=4), -5_000, samples=-1)
    assert refresh(warehouse, "power_1h") == [FIRST]


def test_a_day_whose_minutes_are_gone_is_dropped(minutes: Client, warehouse: Warehouse):
    refresh(warehouse, "power_1h")
    minutes.command("ALTER TABLE power_1m DELETE WHERE toDate(minute) = '2026-02-02' SETTINGS mutations_sync = 2")
    assert refresh(warehouse, "power_1h") == [SECOND]
    assert minutes.query("SELECT DISTINCT toDate(hour) FROM power_1h ORDER BY 1").result_columns[0] == [FIRST, THIRD]


def test_more_days_than_one_insert_may_touch(client: Client, warehouse: Warehouse):
    client.command("TRUNCATE TABLE power_1m")
    client.command("TRUNCATE TABLE power_1h")
    for month in range(4):
        start = DAY + timedelta(days=30 * month)
        client.insert_arrow("power_1m", power_rows("guian-1", "it", np.ones(30 * 24), start).to_arrow())
    assert len(refresh(warehouse, "power_1h")) == 120
    assert total(client, "power_1h", "samples") == total(client, "power_1m", "samples")


@pytest.mark.parametrize("table", COARSER)
def test_every_column_of_a_coarser_table_is_a_key_or_knows_how_to_be_aggregated(warehouse: Warehouse, table: str):
    made = CoarserTable.of(warehouse, table)
    keys = warehouse.frame(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "AND is_in_sorting_key AND name != {time:String}",
        table=table,
        time=time_of(table),
    )["name"]
    assert set(made.keys) == set(keys)
    assert {"samples", "arrived_min"} <= made.aggregates.keys()


def test_histograms_are_added_up_by_bucket(client: Client, warehouse: Warehouse):
    for minute, buckets in ((0, {1: 2, 3: 1}), (7, {3: 4})):
        client.insert(
            "tokens_1m",
            [[DAY + timedelta(minutes=minute), "s", "r", "g", "p", "m", 1, buckets]],
            column_names=["minute", "site", "region", "gateway", "provider", "model", "samples", "duration_histogram"],
        )
    assert refresh(warehouse, "tokens_1h") == [date(2026, 2, 1)]
    assert client.query("SELECT duration_histogram FROM tokens_1h").result_rows == [({1: 2, 3: 5},)]
