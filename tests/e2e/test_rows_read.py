"""What a dashboard's query reads is its range of the rollups, however much there is besides."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dashboards.board.answers import Answers, Choices
from dashboards.board.data import QUERY_SETTINGS, Source, clickhouse
from dashboards.build import all_dashboards
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from pipelines.migrate import migrate
from schemas.settings import Settings
from schemas.tables import ROLLUPS

pytestmark = pytest.mark.e2e

BEGIN = datetime(2026, 11, 20, 6, tzinfo=UTC)
CHOICES = Choices("2026-11-20T06:00:00Z", "2026-11-20T12:00:00Z", "10s", {})
DAYS = 15
"""Of the same month, so of one part: only the order of its rows can keep a query from reading them."""
GRANULES = 20_000
"""Rows read beyond the range: up to one granule of 8,192 at each of its ends."""

# What is left in a package is what was granted less all that was ever used of it.
ALL_OF_HISTORY = {("wattstream-tokens", "Packages")}
TABLES = [table for tables in ROLLUPS.values() for table in tables]


def rows_read(settings: Settings) -> dict[tuple[str, str], int]:
    """By dashboard and panel."""
    answers = Answers(all_dashboards(), Source(clickhouse(settings)), lambda: datetime(2026, 11, 20, 12, tzinfo=UTC))
    viewer = settings.clickhouse_client("viewer")
    found: dict[tuple[str, str], int] = {}
    for uid, document in answers.documents.items():
        for panel in document["panels"]:
            _, queries = asyncio.run(answers.queries(uid, panel["id"], CHOICES))
            summaries = [viewer.query(sql, settings=QUERY_SETTINGS).summary for sql in queries]
            found[uid, panel["title"]] = sum(int(summary["read_rows"]) for summary in summaries)
    return found


def test_each_query_reads_its_range_alone(
    tmp_path_factory: pytest.TempPathFactory, fill_board: Callable[[Settings], None]
) -> None:
    settings = Settings(home=tmp_path_factory.mktemp("rows-read"), port_base=free_ports(20))
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        migrate(settings)
        fill_board(settings)
        writer = settings.clickhouse_client("writer")
        alone = rows_read(settings)
        for table in TABLES:
            earlier = f"SELECT * FROM {table} CROSS JOIN (SELECT number + 1 AS days FROM numbers({DAYS})) AS other"
            writer.command(
                f"INSERT INTO {table} SELECT * EXCEPT (days) REPLACE (minute - toIntervalDay(days) AS minute) "
                f"FROM ({earlier} WHERE minute >= fromUnixTimestamp({int(BEGIN.timestamp())}))"
            )
            writer.command(f"OPTIMIZE TABLE {table} FINAL")
        beside_more = rows_read(settings)
    assert sum(alone.values()) > 1_000_000, "nothing was read"
    grown = {name for name, rows in beside_more.items() if rows > alone[name] + GRANULES}
    assert grown == ALL_OF_HISTORY
