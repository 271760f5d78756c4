"""The tables by the hour and the day, rebuilt from the one-minute rollups for the days whose rows differ."""

import calendar
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from dags.clickhouse import Warehouse, day_partition
from schemas.steps import time_of
from schemas.tables import COARSER

DAYS_AT_ONCE = 31
"""Days in one insert; ClickHouse refuses a block of more than 100 partitions by default."""


@dataclass(frozen=True)
class CoarserTable:
    """A table of a rollup's sums by the hour or the day, and the finer one that it is made from, as the engine says.

    ``keys`` are its own, without the time; ``aggregates`` gives the function of every other column.
    """

    name: str
    source: str
    keys: tuple[str, ...]
    aggregates: dict[str, str]

    @classmethod
    def of(cls, warehouse: Warehouse, name: str) -> "CoarserTable":
        """Read the columns: one is a key, or aggregates the rollup's column of the same name as it says."""
        rollup, source = COARSER[name]
        sql = """
            SELECT name, extract(m.type, '^SimpleAggregateFunction\\\\((\\\\w+)') AS aggregate
            FROM system.columns AS c
            LEFT JOIN system.columns AS m ON m.database = c.database AND m.table = {rollup:String} AND m.name = c.name
            WHERE c.database = currentDatabase() AND c.table = {table:String} AND c.name != {time:String}
            ORDER BY c.position
        """
        columns = warehouse.frame(sql, rollup=rollup, table=name, time=time_of(name))
        functions = dict(zip(columns["name"], columns["aggregate"], strict=True))
        keys = tuple(column for column, function in functions.items() if not function)
        return cls(name, source, keys, {column: function for column, function in functions.items() if function})

    def _start(self, time: str) -> str:
        """The begin of the hour or day of a time."""
        return f"toStartOf{time_of(self.name).title()}({time})"

    def changed_days(self, warehouse: Warehouse) -> list[date]:
        """The days on which the two tables differ.

        Each row's sums are multiplied by a hash of its time and keys and added up modulo 2^64, the coarser ones with a
        minus: the rest is 0 where the day is the same, whatever has merged, and else not (but for one case in 2^64). So
        late events, mended differences and removed rows are all found, without a watermark that could be wrong. It
        reads the keys and sums of both tables once.
        """
        sums = [name for name, function in self.aggregates.items() if function == "sum"]
        keys = ", ".join(self.keys)

        def side(table: str, sign: str) -> str:
            time = time_of(table)
            mark = f"{sign}reinterpretAsInt64(cityHash64({self._start(time)}, {keys}))"
            terms = ", ".join(f"{name} * mark AS {name}_" for name in sums)
            return f"SELECT toDate({time}) AS date, {mark} AS mark, {terms} FROM {table}"  # noqa: S608

        rest = " OR ".join(f"sum({name}_) != 0" for name in sums)
        sql = f"""
            SELECT toString(date) AS changed
            FROM ({side(self.source, "")} UNION ALL {side(self.name, "-")})
            GROUP BY date HAVING {rest} ORDER BY date
        """  # noqa: S608
        return [date.fromisoformat(day) for day in warehouse.frame(sql)["changed"]]

    def rebuild(self, warehouse: Warehouse, days: Sequence[date]) -> None:
        """Make those days anew, or their months; readers see each as it was or as it is, never half."""
        aggregates = ", ".join(f"{function}(t.{name}) AS {name}_" for name, function in self.aggregates.items())
        keys = ", ".join(f"t.{name} AS {name}_" for name in self.keys)
        columns = ", ".join((time_of(self.name), *self.keys, *self.aggregates))
        groups = ", ".join(("time_", *(f"{name}_" for name in self.keys)))
        time = f"t.{time_of(self.source)}"
        for some in self._pieces(days):
            with warehouse.staging(self.name) as staging:
                wanted = ", ".join(f"'{day.isoformat()}'" for day in some)
                warehouse.execute(f"""
                    INSERT INTO {staging} ({columns})
                    SELECT {self._start(time)} AS time_, {keys}, {aggregates} FROM {self.source} AS t
                    WHERE {time} >= toDateTime('{min(some)} 00:00:00', 'UTC')
                      AND {time} < toDateTime('{max(some)} 00:00:00', 'UTC') + INTERVAL 1 DAY
                      AND toDate({time}) IN ({wanted})
                    GROUP BY {groups}
                """)  # noqa: S608
                warehouse.swap(self.name, staging, map(self._partition, some))

    def _pieces(self, days: Sequence[date]) -> Iterator[Sequence[date]]:
        """What is made and swapped at once: some days, or the month of one."""
        if time_of(self.name) == "hour":
            for first in range(0, len(days), DAYS_AT_ONCE):
                yield days[first : first + DAYS_AT_ONCE]
        else:
            for year, month in sorted({(day.year, day.month) for day in days}):
                yield [date(year, month, day + 1) for day in range(calendar.monthrange(year, month)[1])]

    def _partition(self, day: date) -> str:
        return day_partition(day) if time_of(self.name) == "hour" else f"{day:%Y%m}"


def refresh(warehouse: Warehouse, name: str) -> list[date]:
    """Bring a coarser table up to date with what it is made from; returns the days that were rebuilt."""
    table = CoarserTable.of(warehouse, name)
    days = table.changed_days(warehouse)
    table.rebuild(warehouse, days)
    return days


def rebuilt(days: Sequence[date]) -> dg.MaterializeResult:
    """What Dagster shows of a run."""
    shown = ", ".join(day.isoformat() for day in days[:10]) + (" …" if len(days) > 10 else "")
    return dg.MaterializeResult(metadata={"days_rebuilt": len(days), "days": shown or "none had changed"})


def _asset(name: str) -> dg.AssetsDefinition:
    _, source = COARSER[name]

    @dg.asset(
        name=name,
        deps=[source],
        group_name="hourly",
        kinds={"clickhouse"},
        description=f"{source} by the {time_of(name)}, rebuilt where it changed, a day or month swapped in whole.",
    )
    def coarser(warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        return rebuilt(refresh(warehouse, name))

    return coarser


def _check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, description=f"Every sum of each day equals that of {COARSER[name][1]}.")
    def sums_equal_source(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
        # Events go on arriving between the build and this check: the days they mostly arrive for are the next run's.
        settled = datetime.now(UTC).date() - timedelta(days=1)
        days = [day for day in CoarserTable.of(warehouse, name).changed_days(warehouse) if day < settled]
        return dg.AssetCheckResult(
            passed=not days,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"days_that_differ": ", ".join(map(str, days)) or "none"},
        )

    return sums_equal_source


ASSETS = [_asset(name) for name in COARSER]
CHECKS = [_check(name) for name in COARSER]
