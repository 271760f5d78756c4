"""Ranges and buckets in the datasource's macros.

Two rules are kept here: a panel over time reads whole buckets only (a partial one would look like a fall), and a bucket
without data is null, so that it is drawn as a gap and never as zero.
"""

HOURS_BEYOND, DAYS_BEYOND = 2, 21
"""Days of a range from which on buckets are an hour and a day at least: 21 days of hours are 504 points, and 90 days of
the network by region, model and hour were 8 million rows."""

HOUR, DAY = 3600, 86_400
_RANGE = "dateDiff('second', $__fromTime, $__toTime)"
SECONDS = (
    f"multiIf({_RANGE} > {DAYS_BEYOND * DAY}, greatest($__interval_s, {DAY}), "
    f"{_RANGE} > {HOURS_BEYOND * DAY}, greatest($__interval_s, {HOUR}), $__interval_s)"
)
"""Of a bucket."""


def bucket_seconds(range_seconds: float, interval_seconds: int) -> int:
    """What ``SECONDS`` says."""
    least = DAY if range_seconds > DAYS_BEYOND * DAY else HOUR if range_seconds > HOURS_BEYOND * DAY else 0
    return max(interval_seconds, least)


BUCKET = f"toIntervalSecond({SECONDS})"
WHOLE_BUCKETS = (
    f"minute >= toStartOfInterval($__fromTime, {BUCKET}) AND minute < toStartOfInterval($__toTime, {BUCKET})"
)
"""The buckets that the range covers to their end."""

UNTIL = "toDateTime64($__toTime, 3)"
"""The end of the range, for columns finer than a second: against a DateTime, ClickHouse's index passes over rows of the
second before it."""

FINE = f"{SECONDS} < {HOUR}"
"""With buckets of an hour or more, the views *_in_steps read whole days by the hour."""

_FROM_TO = "start = $__fromTime, stop = $__toTime"
_LONG = f"{_RANGE} > {DAY}"
_START, _STOP = (f"if({_LONG}, toStartOfHour({end}), {end})" for end in ("$__fromTime", "$__toTime"))
_STEP_OF_SUMS = f"step = toUInt32(if({_LONG}, {DAY}, $__interval_s))"
STEPS = f"start = {_START}, stop = {_STOP}, {_STEP_OF_SUMS}"
"""The range, for sums over all of it by such a view: where it is longer than a day, both ends down to the hour. So two
days until now are 48 hours; of all hours that they touch, energy would be 2 % too much."""

SECONDS_OF_STEPS = f"dateDiff('second', {_START}, {_STOP})"
"""How long that is."""

STEPS_TOUCHED = f"{_FROM_TO}, {_STEP_OF_SUMS}"
"""The same with all hours that the range touches: for when something was last heard."""

TO_HOURS = "Of a range longer than a day, both ends are taken down to the hour."

HOURS = f"{_FROM_TO}, step = {HOUR}"
"""The range in whole hours, for what is told by the hour."""

WHOLE_STEPS = (
    f"start = toStartOfInterval($__fromTime, {BUCKET}), stop = toStartOfInterval($__toTime, {BUCKET}), "
    f"step = toUInt32({SECONDS})"
)
"""The buckets that the range covers to their end, for such a view."""

STEPS_OF_CHOICE = f"{_FROM_TO}, step = multiIf({_RANGE} > {DAY}, {DAY}, {_RANGE} = {DAY}, {HOUR}, 60)"
"""The range for the options of a variable, which have no interval: from a day on, hours are fine enough."""

RECENT = "minute >= $__toTime - INTERVAL 15 MINUTE AND minute < $__toTime"
"""What "now" means: the last quarter of an hour of the range."""

RECENT_OF_VIEW = "start = $__toTime - INTERVAL 15 MINUTE, stop = $__toTime"
RECENT_IN_STEPS = f"{RECENT_OF_VIEW}, step = 60"


def bucket_of(column: str) -> str:
    """The begin of a time's bucket, as ``time``."""
    return f"toStartOfInterval(toDateTime({column}), {BUCKET}) AS time"


TIME = bucket_of("minute")


def over_time(sql: str, *values: str, by: str = "") -> str:
    """``sql`` yields ``time``, the label ``by`` if any, and ``values``; missing buckets become nulls."""
    names = values or ("value",)
    label = f"{by}, " if by else ""
    numbers = ", ".join(f"toNullable({name}) AS {name}" for name in names)
    return (
        f"SELECT * FROM (\n"
        f"SELECT time, {label}{numbers} FROM (\n{sql.strip()}\n)\n"
        f"ORDER BY {label}time WITH FILL FROM toStartOfInterval($__fromTime, {BUCKET}) "
        f"TO toStartOfInterval($__toTime, {BUCKET}) STEP {BUCKET}\n"
        f") ORDER BY time"
    )


def only(variable: str, column: str | None = None) -> str:
    """The condition that a multi-value variable sets; nothing at all where all are chosen."""
    return f"$__conditionalAll({column or variable} IN (${{{variable}:singlequote}}), ${variable})"
