"""The hourly tables of energy, PUE and completeness: made from the views by the minute, for the days that need it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from dags.clickhouse import Warehouse, day_partition, text
from dags.hourly import rebuilt
from schemas.steps import days as days_of
from schemas.tables import HOURLY, MEASURES

Say = Callable[[str], None]

SELECTS = {
    "energy_1h": """
        SELECT
            toStartOfHour(minute) AS hour, site, node, meter, role,
            sum(samples) AS samples, sum(joules) AS joules, sum(seconds) AS seconds, max(method) AS method
        FROM (
            SELECT minute, site, node, meter, role, 0 AS samples, joules, seconds, method
            FROM energy(start = {before:DateTime('UTC')}, stop = {after:DateTime('UTC')})
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
            UNION ALL
            SELECT minute, site, node, meter, role, samples, 0, 0, '' FROM power_1m
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
        )
        GROUP BY hour, site, node, meter, role""",
    "site_energy_1h": """
        SELECT
            toStartOfHour(minute) AS hour, site, sum(samples) AS samples,
            sum(facility_joules) AS facility_joules, sum(it_joules) AS it_joules,
            sum(matched_facility_joules) AS matched_facility_joules, sum(matched_it_joules) AS matched_it_joules,
            max(watts) AS utility_watts_max, sum(ifNull(watts, 0)) AS utility_watts, count(watts) AS utility_minutes
        FROM (
            SELECT
                minute, site, 0 AS samples, facility_joules, it_joules,
                matched_facility_joules, matched_it_joules, utility_watts AS watts
            FROM site_energy(start = {before:DateTime('UTC')}, stop = {after:DateTime('UTC')})
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
            UNION ALL
            SELECT minute, site, samples, NULL, NULL, 0, 0, NULL FROM power_1m
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
        )
        GROUP BY hour, site""",
    "completeness_1h": """
        SELECT
            toStartOfHour(minute) AS hour, topic, site,
            sum(samples) AS samples, sum(expected) AS expected, sum(heard) AS heard
        FROM (
            SELECT minute, topic, site, 0 AS samples, expected, heard
            FROM completeness(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')})
            UNION ALL
            SELECT minute, 'power', site, samples, 0, 0 FROM power_1m
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
            UNION ALL
            SELECT minute, 'utilization', site, samples, 0, 0 FROM utilization_1m
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
            UNION ALL
            SELECT minute, 'links', a_site, samples, 0, 0 FROM links_1m
            WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
        )
        GROUP BY hour, topic, site""",
}
"""What each of the tables holds of the range; every sample is in a row, so that it can be held against the rollups.

Energy looks from ``before`` to ``after``: a counter may be silent over midnight, for a day at most.
"""

_OLDER = """
    SELECT toString(toDate(parseDateTimeBestEffort(partition))) AS day
    FROM system.parts
    WHERE active AND database = currentDatabase() AND (table = {hours:String} OR has({sources:Array(String)}, table))
    GROUP BY day
    HAVING maxIf(modification_time, table != {hours:String}) > maxIf(modification_time, table = {hours:String})"""

# A day of completeness also changes with who was expected: every emitter's minutes of the day, as the view counts them.
_EXPECTED = """
    SELECT toString(expected_day) AS day
    FROM (
        SELECT
            toDate(arrayJoin(range(
                toUInt32(toDate(since)), toUInt32(toDate(least(until, now()))) + 1))) AS expected_day,
            sum(emitters * toInt64(ceil((
                toInt64(toUInt32(least(until, toDateTime(expected_day + 1, 'UTC'))))
                - toUInt32(toStartOfMinute(greatest(since, toDateTime(expected_day, 'UTC'))))) / 60))) AS more
        FROM (
            SELECT since, until, count() AS emitters
            FROM (
                SELECT
                    topic, site, node, emitter, since,
                    argMax(e.until, e.registered) AS until, argMax(e.maintenance, e.registered) AS maintenance
                FROM emitters AS e
                WHERE e.since < now()
                GROUP BY topic, site, node, emitter, since
                HAVING NOT maintenance AND until > since
            )
            GROUP BY since, until
        )
        WHERE until > toDateTime(expected_day, 'UTC')
        GROUP BY expected_day
        UNION ALL
        SELECT toDate(hour) AS expected_day, -toInt64(sum(expected)) AS more FROM completeness_1h
        GROUP BY expected_day
    )
    WHERE expected_day < today()
    GROUP BY expected_day HAVING sum(more) != 0"""

# An interval says how long a reading without a counter stands, and who moves leaves one site's day for another's: a
# registration makes its days anew. Parts tell their time in whole seconds, so one of the same second counts as later.
_REGISTERED = """
    SELECT DISTINCT toString(made.day) AS day
    FROM (
        SELECT toDate(parseDateTimeBestEffort(partition)) AS day, max(modification_time) AS at
        FROM system.parts
        WHERE active AND database = currentDatabase() AND table = {hours:String}
        GROUP BY day
    ) AS made
    CROSS JOIN (
        SELECT since, until, max(registered) AS registered
        FROM emitters
        WHERE has({rollups:Array(String)}, concat(topic, '_1m'))
        GROUP BY since, until
    ) AS known
    WHERE toDateTime(known.registered, 'UTC') >= made.at
        AND known.since < toDateTime(made.day + 1, 'UTC') AND known.until > toDateTime(made.day, 'UTC')"""


@dataclass(frozen=True)
class HourlyMeasure:
    """One of the tables."""

    hours: str

    def changed_days(self, warehouse: Warehouse) -> list[date]:
        """The days that need it.

        Those of which the table lacks a sample or has one too many; those whose hours in a rollup's own hourly table
        were made anew since, as after a mended difference, which brings no sample; those of emitters that were
        registered since; of completeness, those on which others were expected.
        """
        rollups = list(MEASURES[self.hours])
        lacking = f"SELECT toString(date) AS day FROM ({days_of(rollups, self.hours)}) WHERE open != 0"  # noqa: S608
        sources = [HOURLY[rollup] for rollup in rollups]
        found = set(warehouse.frame(lacking)["day"])
        found |= set(warehouse.frame(_OLDER, hours=self.hours, sources=sources)["day"])
        found |= set(warehouse.frame(_REGISTERED, hours=self.hours, rollups=rollups)["day"])
        if self.hours == "completeness_1h":
            found |= set(warehouse.frame(_EXPECTED)["day"])
        return sorted(map(date.fromisoformat, found))

    def neighbours(self, warehouse: Warehouse, days: Sequence[date]) -> list[date]:
        """The days beside them that have hours: a reading reaches beyond midnight, a counter's both ways."""
        beside = {day + timedelta(days=step) for day in days for step in (-1, 1)} - set(days)
        known = warehouse.frame(f"SELECT DISTINCT toString(toDate(hour)) AS day FROM {self.hours}")["day"]  # noqa: S608
        return sorted(beside & {date.fromisoformat(day) for day in known})

    def rebuild(self, warehouse: Warehouse, day: date) -> None:
        """Make that day anew; readers see it as it was or as it is."""
        start, one = datetime(day.year, day.month, day.day, tzinfo=UTC), timedelta(days=1)
        span = {"before": start - one, "start": start, "stop": start + one, "after": start + 2 * one}
        with warehouse.staging(self.hours) as staging:
            warehouse.execute(
                f"INSERT INTO {staging} {SELECTS[self.hours]}",
                **{name: text(time) for name, time in span.items()},
            )
            warehouse.swap(self.hours, staging, [day_partition(day)])


def refresh(warehouse: Warehouse, hours: str, say: Say = lambda _: None) -> list[date]:
    """Bring a table up to date; returns the days that were made anew.

    Neighbours come first: killed in between, the days that changed still do so at the next run.
    """
    table = HourlyMeasure(hours)
    changed = table.changed_days(warehouse)
    order = [*table.neighbours(warehouse, changed), *changed]
    for number, day in enumerate(order, 1):
        table.rebuild(warehouse, day)
        say(f"{hours} of {day}: {number} of {len(order)} days")
    return sorted(order)


def _asset(hours: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=hours,
        deps=[*(HOURLY[rollup] for rollup in MEASURES[hours]), "emitters"],
        group_name="hourly",
        kinds={"clickhouse"},
        description=f"The view {hours.removesuffix('_1h')} by the hour, made for the days that changed.",
    )
    def measure(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        return rebuilt(refresh(warehouse, hours, context.log.info))

    return measure


ASSETS = [_asset(hours) for hours in MEASURES]
