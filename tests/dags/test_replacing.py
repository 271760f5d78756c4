"""Partitions are replaced whole: a reader sees the old rows or the new ones, never fewer; nothing is left behind."""

import threading
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from dags.clickhouse import Warehouse
from pipelines.local.processes import wait_until
from schemas.settings import Settings

DAYS = [date(2026, 1, 1), date(2026, 1, 2)]


def demand_rows(value: float, days: list[date]) -> pl.DataFrame:
    hours = [datetime(d.year, d.month, d.day, hour, tzinfo=UTC) for d in days for hour in range(24)]
    return pl.DataFrame(
        {
            "hour": hours,
            "metric": "requests",
            "scope": "network",
            "subject": "",
            "unit": "{request}/h",
            "value": value,
            "completeness": 1.0,
            "state": "measured",
        }
    )


def rows_by_day(warehouse: Warehouse) -> dict[str, tuple[int, float]]:
    frame = warehouse.frame(
        "SELECT toString(toDate(hour)) AS day, count() AS n, sum(value) AS v FROM demand_1h GROUP BY day"
    )
    return {day: (n, v) for day, n, v in frame.iter_rows()}


def test_only_the_named_days_change_and_a_day_without_rows_is_dropped(warehouse: Warehouse):
    warehouse.replace_days("demand_1h", DAYS, demand_rows(1.0, DAYS))
    warehouse.replace_days("demand_1h", DAYS[1:], demand_rows(2.0, DAYS[1:]))
    assert rows_by_day(warehouse) == {"2026-01-01": (24, 24.0), "2026-01-02": (24, 48.0)}
    warehouse.replace_days("demand_1h", DAYS[:1], demand_rows(1.0, []))
    assert rows_by_day(warehouse) == {"2026-01-02": (24, 48.0)}


def test_a_reader_never_sees_a_hole(warehouse: Warehouse, engine_settings: Settings):
    warehouse.replace_days("demand_1h", DAYS, demand_rows(1.0, DAYS))
    seen: set[int] = set()
    done = threading.Event()

    def read() -> None:
        with Warehouse.of(engine_settings) as reader:
            while not done.is_set():
                seen.add(reader.frame("SELECT count() AS n FROM demand_1h")["n"].item())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        wait_until(lambda: bool(seen), 60, "the reader does not begin")
        for turn in range(15):
            warehouse.replace_days("demand_1h", DAYS, demand_rows(float(turn), DAYS))
    finally:
        done.set()
        thread.join()
    assert seen == {48}


def test_an_issue_is_replaced_by_the_same_one_and_beside_others(warehouse: Warehouse):
    first = datetime(2026, 1, 1, 5, tzinfo=UTC)
    for issued, rows in ((first, 3), (first + timedelta(hours=1), 2), (first, 1)):
        sites = [f"site-{n}" for n in range(rows)]
        frame = pl.DataFrame({"site": sites}).with_columns(issued=pl.lit(issued), made=pl.lit(datetime.now(UTC)))
        warehouse.replace_issue("capacity_outlook", issued, frame)
    found = warehouse.frame(
        "SELECT toHour(issued) AS hour, count() AS n FROM capacity_outlook GROUP BY hour ORDER BY hour"
    )
    assert found.rows() == [(5, 1), (6, 2)]


def test_no_staging_table_outlives_its_run_not_even_a_failed_one(warehouse: Warehouse):
    def fail() -> None:
        with warehouse.staging("demand_1h"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert warehouse.frame("SELECT name FROM system.tables WHERE name LIKE '%staging%'").is_empty()


def test_two_runs_at_once_do_not_mix(warehouse: Warehouse):
    with warehouse.staging("demand_1h") as one, warehouse.staging("demand_1h") as other:
        assert one != other


def test_an_issue_is_kept_for_a_week_and_that_of_midnight_for_a_year(client: Client):
    now = datetime.now(UTC)
    names = ["issued", "made", "site"]
    for age, hour in ((1, 5), (8, 5), (8, 0), (401, 0)):
        made = now - timedelta(days=age)
        client.insert(
            "capacity_outlook", [[datetime(2020, 1, 1, hour, tzinfo=UTC), made, f"{age}"]], column_names=names
        )
    client.command("OPTIMIZE TABLE capacity_outlook FINAL")
    kept = client.query("SELECT site FROM capacity_outlook WHERE toYear(issued) = 2020 ORDER BY site").result_columns
    assert list(kept[0]) == ["1", "8"]
