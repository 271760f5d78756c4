"""Views that are read by the minute for a short step, and by the hour for a long one: the SQL that they have in common.

A constant condition that is false keeps ClickHouse from reading that side at all. A day is complete in an hourly table
where both count the same samples, which their projections by_day tell from a few rows a part.
"""
# ruff: noqa: S608 - the names are those of our tables

import re

HOUR_SECONDS = 3600
"""From this step on hours are read."""

START, STOP, STEP = "{start:DateTime('UTC')}", "{stop:DateTime('UTC')}", "{step:UInt32}"


def days(rollups: list[str], hours: str) -> str:
    """A SELECT of (day, open): open is 0 where the hourly table has all samples that these rollups have of the day."""
    sides = [f"SELECT toDate(minute) AS day, sum(samples) AS more FROM {rollup} GROUP BY day" for rollup in rollups]
    sides.append(f"SELECT toDate(hour) AS day, -sum(samples) AS more FROM {hours} GROUP BY day")
    return f"SELECT day, sum(more) AS open FROM ({' UNION ALL '.join(sides)}) GROUP BY day"


def first_open(rollups: list[str], hours: str) -> str:
    """A SELECT of the first time of the range that must be read by the minute; its end where there is none."""
    return (
        f"SELECT if(count() = 0, {STOP}, greatest(toStartOfHour({START}), toDateTime(min(day), 'UTC'))) "
        f"FROM ({days(rollups, hours)}) WHERE open != 0 AND day >= toDate({START}) AND day <= toDate({STOP})"
    )


def in_steps(rollup: str, hours: str) -> str:
    """The SELECT of a view with parameters (start, stop: DateTime; step: s) over a rollup and its hourly table."""
    return f"""WITH days AS ({days([rollup], hours)})
SELECT hour AS minute, * EXCEPT (hour)
FROM {hours}
WHERE {STEP} >= {HOUR_SECONDS} AND hour >= toStartOfHour({START}) AND hour < {STOP}
    AND toDate(hour) IN (SELECT day FROM days WHERE open = 0)
UNION ALL
SELECT minute, * EXCEPT (minute, topic_partition, upto)
FROM {rollup}
WHERE {STEP} >= {HOUR_SECONDS} AND minute >= toStartOfHour({START})
    AND minute < toStartOfHour({STOP} + INTERVAL 3599 SECOND)
    AND toDate(minute) IN (SELECT day FROM days WHERE open != 0)
UNION ALL
SELECT minute, * EXCEPT (minute, topic_partition, upto)
FROM {rollup}
WHERE {STEP} < {HOUR_SECONDS} AND minute >= {START} AND minute < {STOP}"""


def filled_in(text: str) -> str:
    """``{steps of ROLLUP in HOURS}``, ``{days of ROLLUP, … in HOURS}`` and ``{first open of ROLLUP, … in HOURS}``."""

    def put(found: re.Match[str]) -> str:
        what, rollups, hours = found[1], found[2].split(", "), found[3]
        if what == "steps":
            return in_steps(rollups[0], hours)
        return (days if what == "days" else first_open)(rollups, hours)

    return re.sub(r"\{(steps|days|first open) of ([\w, ]+) in (\w+)\}", put, text)
