"""ClickHouse to Polars and back through Arrow, and days of a table replaced so that no reader ever sees a hole."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.settings import Settings

_STAGING = "__staging_"
_ABANDONED_HOURS = 6
"""A staging table older than any run takes was left by one that was killed."""


class Warehouse:
    """The tables behind one clickhouse-connect client; for one thread."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> Iterator["Warehouse"]:
        """The planner's; closed at the end."""
        client = settings.clickhouse_client("planner")
        try:
            yield cls(client)
        finally:
            client.close()

    def frame(self, sql: str, **parameters: Any) -> pl.DataFrame:
        """The result of a query; ``parameters`` are bound by the server ({name:Type}).

        Arrow carries a DateTime as a bare UInt32: select toDateTime64(x, 0, 'UTC') to get a time.
        """
        settings = {"output_format_arrow_low_cardinality_as_dictionary": 0}
        table = self._client.query_arrow(sql, parameters=parameters, settings=settings, use_strings=True)
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None).dt.replace_time_zone("UTC"))

    def execute(self, sql: str, **parameters: Any) -> None:
        """Run a statement that gives no rows."""
        self._client.command(sql, parameters=parameters)

    def replace_days(self, table: str, days: Iterable[date], frame: pl.DataFrame) -> None:
        """Make ``frame`` all that ``table`` (partitioned by day) holds of ``days``; a day without rows is dropped."""
        with self.staging(table) as staging:
            if frame.height:
                self._client.insert_arrow(staging, frame.to_arrow())
            self.swap(table, staging, map(day_partition, days))

    def replace_issue(self, table: str, issued: datetime, frame: pl.DataFrame) -> None:
        """Make ``frame`` all that ``table`` (partitioned by issue) holds of that issue, at once."""
        with self.staging(table) as staging:
            if frame.height:
                self._client.insert_arrow(staging, frame.to_arrow())
            self.swap(table, staging, [f"{issued.astimezone(UTC):%Y%m%d%H%M%S}"])

    @contextmanager
    def staging(self, table: str) -> Iterator[str]:
        """An empty table of the same structure, dropped at the end; its name is this run's own."""
        self._drop_abandoned(table)
        name = f"{table}{_STAGING}{uuid4().hex}"
        self.execute(f"CREATE TABLE {name} AS {table}")
        try:
            yield name
        finally:
            self.execute(f"DROP TABLE IF EXISTS {name} SYNC")

    def swap(self, table: str, staging: str, partitions: Iterable[str]) -> None:
        """Put the staging table's partitions in place of the table's, each at once; one without rows is dropped."""
        parts = "SELECT DISTINCT partition FROM system.parts WHERE active AND database = currentDatabase() AND table = "
        filled = set(self.frame(parts + "{table:String}", table=staging)["partition"])
        for partition in sorted(set(partitions)):
            verb = (
                f"REPLACE PARTITION {partition} FROM {staging}"
                if partition in filled
                else f"DROP PARTITION {partition}"
            )
            self.execute(f"ALTER TABLE {table} {verb}")

    def _drop_abandoned(self, table: str) -> None:
        sql = """
            SELECT name FROM system.tables
            WHERE database = currentDatabase() AND startsWith(name, {prefix:String})
                AND metadata_modification_time < now() - toIntervalHour({hours:UInt16})
        """
        for name in self.frame(sql, prefix=f"{table}{_STAGING}", hours=_ABANDONED_HOURS)["name"]:
            self.execute(f"DROP TABLE IF EXISTS {name} SYNC")


def day_partition(day: date) -> str:
    """The partition of a day in a table that is partitioned by toYYYYMMDD."""
    return f"{day:%Y%m%d}"


def text(moment: datetime) -> str:
    """A time as a query's parameter of type DateTime('UTC')."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
