"""Ranges and buckets in the datasource's macros.

Two rules are kept here: a panel over time reads whole buckets only (a partial one would look like a fall), and a bucket
without data is null, so that it is drawn as a gap and never as zero.
"""

BUCKET = "INTERVAL $__interval_s second"
WHOLE_BUCKETS = (
    f"minute >= toStartOfInterval($__fromTime, {BUCKET}) AND minute < toStartOfInterval($__toTime, {BUCKET})"
)
"""The buckets that the range covers to their end."""

UNTIL = "toDateTime64($__toTime, 3)"
"""The end of the range, for columns finer than a second: against a DateTime, ClickHouse's index passes over rows of the
second before it."""

STEP = "step = $__interval_s"
FINE = "$__interval_s < 3600"
"""With a step of an hour or more, the views *_in_steps read whole days by the hour."""

STEPS = f"start = $__fromTime, stop = $__toTime, {STEP}"
"""The range, for such a view."""

WHOLE_STEPS = f"start = toStartOfInterval($__fromTime, {BUCKET}), stop = toStartOfInterval($__toTime, {BUCKET}), {STEP}"
"""The buckets that the range covers to their end, for such a view."""

STEPS_OF_CHOICE = (
    "start = $__fromTime, stop = $__toTime, step = toUInt32(dateDiff('second', $__fromTime, $__toTime) / 24)"
)
"""The range for the options of a variable, which have no interval: from a day on, hours are fine enough."""

RECENT = "minute >= $__toTime - INTERVAL 15 MINUTE AND minute < $__toTime"
"""What "now" means: the last quarter of an hour of the range."""

RECENT_OF_VIEW = "start = $__toTime - INTERVAL 15 MINUTE, stop = $__toTime"
RECENT_IN_STEPS = f"{RECENT_OF_VIEW}, step = 60"
TIME = "$__timeInterval(minute) AS time"


def over_time(sql: str, *values: str, by: str = "") -> str:
    """``sql`` yields ``time``, the label ``by`` if any, and ``values``; missing buckets become nulls."""
    names = values or ("value",)
    label = f"{by}, " if by else ""
    numbers = ", ".join(f"toNullable({name}) AS {name}" for name in names)
    return (
        f"SELECT * FROM (\n"
        f"SELECT time, {label}{numbers} FROM (\n{sql.strip()}\n)\n"
        f"ORDER BY {label}time WITH FILL FROM toStartOfInterval($__fromTime, {BUCKET}) "
        f"TO toStartOfInterval($__toTime, {BUCKET}) STEP toIntervalSecond($__interval_s)\n"
        f") ORDER BY time"
    )


def only(variable: str, column: str | None = None) -> str:
    """The condition that a multi-value variable sets; nothing at all where all are chosen."""
    return f"$__conditionalAll({column or variable} IN (${{{variable}:singlequote}}), ${variable})"
