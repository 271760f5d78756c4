"""A dashboard's query reads its range of the rollups alone, however much there is besides, and of weeks the hours."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from dags.clickhouse import Warehouse
from dags.hourly import refresh
from dags.hourly_measures import refresh as refresh_measure
from dashboards.board.answers import Choices
from pipelines.bench.dashboards import Panel, Panels
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from pipelines.migrate import migrate
from schemas.settings import Settings
from schemas.tables import COARSER, MEASURES, ROLLUPS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BEGIN = datetime(2026, 11, 20, 6, tzinfo=UTC)
END = datetime(2026, 11, 20, 12, tzinfo=UTC)
SIX_HOURS = Choices("2026-11-20T06:00:00Z", "2026-11-20T12:00:00Z", "10s", {})
DAYS = 5
"""Of the same month, so of one part: only the order of its rows can keep a query from reading them."""
WEEKS = Choices("2026-10-31T00:00:00Z", "2026-11-20T12:00:00Z", "3h", {})
MONTHS = Choices("2026-09-01T00:00:00Z", "2026-11-20T12:00:00Z", "3h", {})
BEYOND = 1.2
"""Up to one granule of 8,192 rows is read beyond the range at each of its ends, of each table that a panel reads."""
GRANULES = 20_000

BY_THE_HOUR = {("wattstream-tokens", "Tenants"), ("wattstream-campus", "Meters"), ("wattstream-noc", "Sites")}
"""They say when one was last heard."""

TABLES = [table for tables in ROLLUPS.values() for table in tables]


def asked(settings: Settings, choices: Choices) -> tuple[dict[Panel, list[Any]], dict[Panel, int]]:
    """What each panel is told, in any order, and the rows that were read for it."""
    panels = Panels(settings, lambda: END)
    told: dict[Panel, list[Any]] = {}
    read: dict[Panel, int] = {}
    for name, sql in panels.queries(choices):
        result = panels.ask(sql)
        told[name] = sorted((row for row in result.result_rows if not of_the_silence(row)), key=repr)
        read[name] = read.get(name, 0) + int(result.summary["read_rows"])
    return told, read


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = Settings(home=tmp_path_factory.mktemp("rows-read"), port_base=free_ports(20))
    with EmbeddedClickHouse(made.home, made.port("clickhouse")):
        migrate(made)
        yield made


@pytest.fixture(scope="module")
def alone(settings: Settings, fill_board: Callable[..., None]) -> dict[Panel, int]:
    """Rows read of six hours where there is nothing else."""
    # With no end, completeness would be made for every day until today: more each day, and one more after midnight.
    fill_board(settings, expected_until="2026-11-21")
    return asked(settings, SIX_HOURS)[1]


@pytest.fixture(scope="module")
def more(alone: dict[Panel, int], writer: Client) -> Client:
    """The same again on each of the days before."""
    for table in TABLES:
        earlier = f"SELECT * FROM {table} CROSS JOIN (SELECT number + 1 AS days FROM numbers({DAYS})) AS other"
        writer.command(
            f"INSERT INTO {table} SELECT * EXCEPT (days) REPLACE (minute - toIntervalDay(days) AS minute) "
            f"FROM ({earlier} WHERE minute >= fromUnixTimestamp({int(BEGIN.timestamp())}))"
        )
        writer.command(f"OPTIMIZE TABLE {table} FINAL")
    return writer


@pytest.mark.usefixtures("more")
def test_each_query_reads_its_range_alone(settings: Settings, alone: dict[Panel, int]) -> None:
    _, beside_more = asked(settings, SIX_HOURS)
    assert sum(alone.values()) > 1_000_000, "nothing was read"
    assert {name for name, rows in beside_more.items() if rows > BEYOND * alone[name] + GRANULES} == set()


@pytest.mark.usefixtures("more")
def test_weeks_and_months_are_told_alike_by_hour_and_day_and_by_the_minute_and_read_a_tenth(settings: Settings) -> None:
    by_minutes = [(choices, *asked(settings, choices)) for choices in (WEEKS, MONTHS)]
    with Warehouse.of(settings) as warehouse:
        for table in COARSER:
            assert refresh(warehouse, table)
        for hours in MEASURES:
            assert refresh_measure(warehouse, hours)
            assert refresh_measure(warehouse, hours) == []
    for choices, told, minutes_read in by_minutes:
        told_coarser, read = asked(settings, choices)
        assert {name for name, rows in told_coarser.items() if not alike(rows, told[name])} == BY_THE_HOUR
        assert sum(read.values()) < sum(minutes_read.values()) / 10


def of_the_silence(row: tuple[Any, ...]) -> bool:
    """Before the first sample nobody is heard, which the hours alone tell."""
    return isinstance(row[0], datetime) and row[0].replace(tzinfo=UTC) < BEGIN - timedelta(days=DAYS)


def alike(one: Any, other: Any) -> bool:
    """Equal, but for the order in which fractions were added up."""
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other
