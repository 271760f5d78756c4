"""Demand adds up what may be added up, and says where it can't."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from dags.clickhouse import Warehouse
from dags.demand import demand, window
from dags.hourly import refresh
from schemas.tables import HOURLY
from tests.dags.synthetic_network import power_rows, token_rows

START = datetime(2026, 2, 1, tzinfo=UTC)
HOURS = 48
NOW = START + timedelta(hours=HOURS, minutes=20)


@pytest.fixture(autouse=True)
def empty(client: Client) -> None:
    for table in (*HOURLY, *HOURLY.values(), "emitters"):
        client.command(f"TRUNCATE TABLE {table}")


def insert(client: Client, *frames: pl.DataFrame) -> None:
    for frame in frames:
        client.insert_arrow("power_1m", frame.to_arrow())


def build(warehouse: Warehouse, now: datetime = NOW) -> pl.DataFrame:
    for table in HOURLY.values():
        refresh(warehouse, table)
    span = window(warehouse, now)
    assert span is not None
    return demand(warehouse, span)


def node(number: int, watts: np.ndarray, start: datetime = START) -> pl.DataFrame:
    return power_rows("lab", "node", watts, start).with_columns(node=pl.lit(f"node-{number}"), meter=pl.lit("sys"))


def one(frame: pl.DataFrame, metric: str, hour: int) -> dict:
    return frame.filter(pl.col("metric") == metric, pl.col("hour") == START + timedelta(hours=hour)).row(0, named=True)


def test_servers_are_added_up_where_no_it_meter_is(client: Client, warehouse: Warehouse):
    insert(client, *(node(n, np.full(HOURS, 100.0 * n)) for n in (1, 2, 3)))
    row = one(build(warehouse), "it_power", 5)
    assert (row["value"], row["unit"], row["completeness"], row["state"]) == (600.0, "W", 1.0, "measured")


def test_an_it_meter_counts_instead_of_the_servers_behind_it(client: Client, warehouse: Warehouse):
    insert(
        client, *(node(n, np.full(HOURS, 100.0)) for n in (1, 2)), power_rows("lab", "it", np.full(HOURS, 230.0), START)
    )
    assert one(build(warehouse), "it_power", 5)["value"] == 230.0


def test_roles_that_overlap_are_never_added_up(client: Client, warehouse: Warehouse):
    for role in ("chassis", "psu", "rack", "cpu", "cooling"):
        insert(client, power_rows("lab", role, np.full(HOURS, 999.0), START))
    insert(client, power_rows("lab", "utility", np.full(HOURS, 500.0), START))
    frame = build(warehouse)
    assert frame["metric"].unique().to_list() == ["utility_power"]
    assert one(frame, "utility_power", 1)["value"] == 500.0


def test_an_hour_in_which_nobody_was_heard_is_missing_not_zero(client: Client, warehouse: Warehouse):
    early, late = np.full(10, 50.0), np.full(HOURS - 20, 50.0)
    insert(client, power_rows("lab", "it", early, START), power_rows("lab", "it", late, START + timedelta(hours=20)))
    frame = build(warehouse)
    assert frame.height == HOURS - 1, "the hour of the newest reading is under way"
    gap = frame.filter(pl.col("hour").is_between(START + timedelta(hours=10), START + timedelta(hours=19)))
    assert gap["value"].null_count() == 10
    assert set(gap["state"]) == {"missing"}
    assert not (frame["value"] == 0).any()


def test_two_servers_of_329_are_partial_and_have_no_sum(client: Client, warehouse: Warehouse):
    insert(client, *(node(n, np.full(HOURS, 10.0)) for n in range(2)))
    alone = pl.concat(node(n, np.full(4, 10.0)) for n in range(2, 329))
    insert(client, alone, alone.with_columns(pl.col("minute") + pl.duration(hours=HOURS - 4)))
    frame = build(warehouse)
    assert one(frame, "it_power", 1)["value"] == pytest.approx(3290.0)
    row = one(frame, "it_power", 20)
    assert (row["value"], row["state"]) == (None, "partial")
    assert row["completeness"] == pytest.approx(2 / 329)


def test_registered_meters_are_expected_also_before_and_after_they_were_heard(client: Client, warehouse: Warehouse):
    insert(client, node(1, np.full(HOURS, 10.0)), node(2, np.full(6, 10.0)))
    for number in (1, 2):
        client.insert(
            "emitters",
            [["power", "lab", f"node-{number}", "sys", 900, START, START + timedelta(days=9)]],
            column_names=["topic", "site", "node", "emitter", "interval_seconds", "since", "until"],
        )
    frame = build(warehouse)
    assert one(frame, "it_power", 5)["value"] == 20.0
    assert one(frame, "it_power", 6)["completeness"] == 0.5
    assert one(frame, "it_power", 6)["value"] is None


def test_a_meter_in_maintenance_is_neither_expected_nor_missed(client: Client, warehouse: Warehouse):
    insert(client, node(1, np.full(HOURS, 10.0)), node(2, np.full(6, 10.0)))
    names = ["topic", "site", "node", "emitter", "interval_seconds", "since", "until", "maintenance"]
    far, half = START + timedelta(days=9), START + timedelta(hours=6)
    client.insert(
        "emitters",
        [
            ["power", "lab", "node-1", "sys", 900, START, far, False],
            ["power", "lab", "node-2", "sys", 900, START, half, False],
            ["power", "lab", "node-2", "sys", 900, half, far, True],
        ],
        column_names=names,
    )
    row = one(build(warehouse), "it_power", 20)
    assert (row["value"], row["completeness"]) == (10.0, 1.0)


def test_accelerators_count_where_a_site_has_no_other_power(client: Client, warehouse: Warehouse):
    rows = [[START + timedelta(hours=hour), "lab", "gpu-05", "all", 1, 2, 2, 2 * 70_000, 1] for hour in range(HOURS)]
    client.insert(
        "utilization_1m",
        rows,
        column_names=[
            "minute",
            "site",
            "node",
            "device",
            "samples",
            "device_samples",
            "power_samples",
            "milliwatts",
            "upto",
        ],
    )
    row = one(build(warehouse), "accelerator_power", 3)
    assert row["value"] == pytest.approx(140.0), "a sample that stands for two devices counts twice"


def test_tokens_of_the_network_are_those_of_its_regions(client: Client, warehouse: Warehouse):
    hours = np.arange(HOURS)
    frames = [token_rows("shanghai", 100, hours, START, 1), token_rows("guangdong", 300, hours, START, 2)]
    for frame in frames:
        client.insert_arrow("tokens_1m", frame.to_arrow())
    made = build(warehouse)
    network = made.filter(pl.col("metric") == "output_tokens", pl.col("scope") == "network")
    regions = made.filter(pl.col("metric") == "output_tokens", pl.col("scope") == "region")
    assert network["value"].sum() == regions["value"].sum()
    assert set(regions["subject"]) == {"shanghai", "guangdong"}
    assert set(made.filter(pl.col("scope") == "network")["metric"]) == {"requests", "input_tokens", "output_tokens"}


def test_the_hour_in_which_tokens_begin_is_left_out_if_it_is_not_whole(client: Client, warehouse: Warehouse):
    frame = token_rows("shanghai", 100, np.arange(HOURS), START + timedelta(minutes=30), 1)
    client.insert_arrow("tokens_1m", frame.to_arrow())
    assert build(warehouse)["hour"].min() == START + timedelta(hours=1)


def test_the_hour_under_way_is_never_part_of_it(client: Client, warehouse: Warehouse):
    insert(client, power_rows("lab", "it", np.full(HOURS, 50.0), START))
    span = window(warehouse, START + timedelta(hours=10, minutes=59))
    assert span is not None
    assert span.issued == START + timedelta(hours=10)


def test_a_trace_of_long_ago_is_planned_from_its_own_end(client: Client, warehouse: Warehouse):
    insert(client, power_rows("lab", "it", np.full(HOURS, 50.0), START))
    span = window(warehouse, datetime(2030, 1, 1, tzinfo=UTC))
    assert span is not None
    assert span.issued == START + timedelta(hours=HOURS - 1)


def test_without_data_there_is_no_window(warehouse: Warehouse):
    assert window(warehouse, NOW) is None
