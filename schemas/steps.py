"""Views that are read by the minute for a short step, by the hour or the day for a long one: the SQL that they share.

A constant condition that is false keeps ClickHouse from reading that side at all. A day is complete in a coarser table
where both count the same samples, which their projections by_day tell from a few rows a part.
"""
# ruff: noqa: S608 - the names are those of our tables

import re
from collections.abc import Sequence

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400
"""From these steps on hours and days are read."""

START, STOP, STEP = "{start:DateTime('UTC')}", "{stop:DateTime('UTC')}", "{step:UInt32}"


def time_of(table: str) -> str:
    """The column with the begin of a row's time, by the table's name."""
    return {"1m": "minute", "1h": "hour", "1d": "day"}[table[-2:]]


def days(rollups: Sequence[str], coarser: str, *, of_view: bool = False) -> str:
    """A SELECT of (date, open): open is 0 where the coarser table has all samples that these rollups have of the day.

    ``of_view``: none where its step is short, for then nothing is to be read, and of a table with 94 parts these days
    take 45 ms. A condition on the day would keep ClickHouse from the projection.
    """
    where = f" WHERE {STEP} >= {HOUR_SECONDS}" if of_view else ""

    def side(table: str, sign: str) -> str:
        return f"SELECT toDate({time_of(table)}) AS date, {sign}sum(samples) AS more FROM {table}{where} GROUP BY date"

    sides = [*(side(rollup, "") for rollup in rollups), side(coarser, "-")]
    return f"SELECT date, sum(more) AS open FROM ({' UNION ALL '.join(sides)}) GROUP BY date"


def first_open(rollups: Sequence[str], hours: str) -> str:
    """A SELECT of the first time of the range that must be read by the minute; its end where there is none."""
    return (
        f"SELECT if(count() = 0, {STOP}, greatest(toStartOfHour({START}), toDateTime(min(date), 'UTC'))) "
        f"FROM ({days(rollups, hours, of_view=True)}) "
        f"WHERE open != 0 AND date >= toDate({START}) AND date <= toDate({STOP})"
    )


def in_steps(rollup: str, hours: str, by_day: str = "", without: Sequence[str] = ()) -> str:
    """The SELECT of a view with parameters (start, stop: DateTime; step: s) over a rollup and its coarser tables.

    ``by_day`` is read for the days that the range holds whole. ``without``: keys that not all of the tables have.
    """

    def columns(table: str) -> str:
        left_out = [time_of(table), *(["topic_partition", "upto"] if table == rollup else []), *without]
        return f"{time_of(table)} AS minute, * EXCEPT ({', '.join(left_out)})"

    names = {"hours_of": hours} | ({"days_of": by_day} if by_day else {})
    known = ", ".join(f"{name} AS ({days([rollup], table, of_view=True)})" for name, table in names.items())
    not_by_day = ""
    sides: list[str] = []
    if by_day:
        whole = (
            f"{STEP} >= {DAY_SECONDS} AND toStartOfDay(COLUMN) >= {START} "
            f"AND toStartOfDay(COLUMN) + INTERVAL 1 DAY <= {STOP} "
            "AND toDate(COLUMN) IN (SELECT date FROM days_of WHERE open = 0)"
        )
        not_by_day = f"\n    AND NOT ({whole})"
        sides.append(f"SELECT {columns(by_day)}\nFROM {by_day}\nWHERE {whole.replace('COLUMN', time_of(by_day))}")
    sides.append(f"""SELECT {columns(hours)}
FROM {hours}
WHERE {STEP} >= {HOUR_SECONDS} AND hour >= toStartOfHour({START}) AND hour < {STOP}
    AND toDate(hour) IN (SELECT date FROM hours_of WHERE open = 0){not_by_day.replace("COLUMN", "hour")}""")
    sides.append(f"""SELECT {columns(rollup)}
FROM {rollup}
WHERE {STEP} >= {HOUR_SECONDS} AND minute >= toStartOfHour({START})
    AND minute < toStartOfHour({STOP} + INTERVAL 3599 SECOND)
    AND toDate(minute) IN (SELECT date FROM hours_of WHERE open != 0){not_by_day.replace("COLUMN", "minute")}""")
    sides.append(f"""SELECT {columns(rollup)}
FROM {rollup}
WHERE {STEP} < {HOUR_SECONDS} AND minute >= {START} AND minute < {STOP}""")
    return f"WITH {known}\n" + "\nUNION ALL\n".join(sides)


def filled_in(text: str) -> str:
    """``text`` with what stands between braces written out.

    ``{steps of ROLLUP in HOURS[, DAYS][ without KEY, …]}``, ``{days of ROLLUP, … in HOURS}`` and ``{first open of
    ROLLUP, … in HOURS}``.
    """

    def put(found: re.Match[str]) -> str:
        what, rollups, coarser = found[1], found[2].split(", "), found[3].split(", ")
        if what == "steps":
            return in_steps(rollups[0], *coarser, without=found[4].split(", ") if found[4] else ())
        return days(rollups, coarser[0], of_view=True) if what == "days" else first_open(rollups, coarser[0])

    return re.sub(r"\{(steps|days|first open) of ([\w, ]+) in ([\w, ]+?)(?: without ([\w, ]+))?\}", put, text)
