"""The hourly tables, rebuilt from the one-minute rollups for the days whose rows differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from dags.clickhouse import Warehouse, day_partition
from schemas.tables import HOURLY

DAYS_AT_ONCE = 31
"""Days in one insert; ClickHouse refuses a block of more than 100 partitions by default."""


@dataclass(frozen=True)
class HourlyTable:
    """One hourly table and the rollup that it is made from, as the engine describes them.

    ``keys`` are the hourly table's own, without the hour; ``aggregates`` gives the function of every other column.
    """

    minutes: str
    hours: str
    keys: tuple[str, ...]
    aggregates: dict[str, str]

    @classmethod
    def of(cls, warehouse: Warehouse, minutes: str) -> "HourlyTable":
        """Read the columns: an hourly one is a key, or aggregates the rollup's column of the same name as it says."""
        hours = HOURLY[minutes]
        sql = """
            SELECT name, extract(m.type, '^SimpleAggregateFunction\\\\((\\\\w+)') AS aggregate
            FROM system.columns AS h
            LEFT JOIN system.columns AS m ON m.database = h.database AND m.table = {minutes:String} AND m.name = h.name
            WHERE h.database = currentDatabase() AND h.table = {hours:String} AND h.name != 'hour'
            ORDER BY h.position
        """
        columns = warehouse.frame(sql, minutes=minutes, hours=hours)
        functions = dict(zip(columns["name"], columns["aggregate"], strict=True))
        keys = tuple(name for name, function in functions.items() if not function)
        return cls(minutes, hours, keys, {name: function for name, function in functions.items() if function})

    def changed_days(self, warehouse: Warehouse) -> list[date]:
        """The days on which the two tables differ.

        Each row's sums are multiplied by a hash of its hour and keys and added up modulo 2^64, the hours' with a minus:
        the rest is 0 where the day is the same, whatever has merged, and else not (but for one case in 2^64). So late
        events, mended differences and removed rows are all found, without a watermark that could be wrong. It reads
        the keys and sums of both tables once.
        """
        sums = [name for name, function in self.aggregates.items() if function == "sum"]
        keys = ", ".join(self.keys)

        def side(table: str, time: str, sign: str) -> str:
            mark = f"{sign}reinterpretAsInt64(cityHash64(toStartOfHour({time}), {keys}))"
            terms = ", ".join(f"{name} * mark AS {name}_" for name in sums)
            return f"SELECT toDate({time}) AS day, {mark} AS mark, {terms} FROM {table}"  # noqa: S608

        rest = " OR ".join(f"sum({name}_) != 0" for name in sums)
        sql = f"""
            SELECT toString(day) AS day
            FROM ({side(self.minutes, "minute", "")} UNION ALL {side(self.hours, "hour", "-")})
            GROUP BY day HAVING {rest} ORDER BY day
        """  # noqa: S608
        return [date.fromisoformat(day) for day in warehouse.frame(sql)["day"]]

    def rebuild(self, warehouse: Warehouse, days: Sequence[date]) -> None:
        """Make those days of the hourly table anew; readers see each day as it was or as it is, never half."""
        aggregates = ", ".join(f"{function}(t.{name}) AS {name}_" for name, function in self.aggregates.items())
        keys = ", ".join(f"t.{name} AS {name}_" for name in self.keys)
        columns = ", ".join(("hour", *self.keys, *self.aggregates))
        groups = ", ".join(("hour_", *(f"{name}_" for name in self.keys)))
        for first in range(0, len(days), DAYS_AT_ONCE):
            some = days[first : first + DAYS_AT_ONCE]
            with warehouse.staging(self.hours) as staging:
                wanted = ", ".join(f"'{day.isoformat()}'" for day in some)
                warehouse.execute(f"""
                    INSERT INTO {staging} ({columns})
                    SELECT toStartOfHour(t.minute) AS hour_, {keys}, {aggregates} FROM {self.minutes} AS t
                    WHERE t.minute >= toDateTime('{min(some)} 00:00:00', 'UTC')
                      AND t.minute < toDateTime('{max(some)} 00:00:00', 'UTC') + INTERVAL 1 DAY
                      AND toDate(t.minute) IN ({wanted})
                    GROUP BY {groups}
                """)  # noqa: S608
                warehouse.swap(self.hours, staging, map(day_partition, some))


def refresh(warehouse: Warehouse, minutes: str) -> list[date]:
    """Bring the hourly table of a rollup up to date; returns the days that were rebuilt."""
    table = HourlyTable.of(warehouse, minutes)
    days = table.changed_days(warehouse)
    table.rebuild(warehouse, days)
    return days


def rebuilt(days: Sequence[date]) -> dg.MaterializeResult:
    """What Dagster shows of a run."""
    shown = ", ".join(day.isoformat() for day in days[:10]) + (" …" if len(days) > 10 else "")
    return dg.MaterializeResult(metadata={"days_rebuilt": len(days), "days": shown or "none had changed"})


def _asset(minutes: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=HOURLY[minutes],
        deps=[minutes],
        group_name="hourly",
        kinds={"clickhouse"},
        description=f"{minutes} by the hour, rebuilt for the days that changed, each swapped in whole.",
    )
    def hourly(warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        return rebuilt(refresh(warehouse, minutes))

    return hourly


def _check(minutes: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=HOURLY[minutes], description="Every sum of each day equals that of the minutes.")
    def sums_equal_minutes(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
        # Events go on arriving between the build and this check: the days they mostly arrive for are the next run's.
        settled = datetime.now(UTC).date() - timedelta(days=1)
        days = [day for day in HourlyTable.of(warehouse, minutes).changed_days(warehouse) if day < settled]
        return dg.AssetCheckResult(
            passed=not days,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"days_that_differ": ", ".join(map(str, days)) or "none"},
        )

    return sums_equal_minutes


ASSETS = [_asset(minutes) for minutes in HOURLY]
CHECKS = [_check(minutes) for minutes in HOURLY]
