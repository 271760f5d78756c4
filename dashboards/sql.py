"""Ranges and buckets in the datasource's macros.

Two rules are kept here: a panel over time reads whole buckets only (a partial one would look like a fall), and a bucket
without data is null, so that it is drawn as a gap and never as zero.
"""

BUCKET = "INTERVAL $__interval_s second"
WHOLE_BUCKETS = (
    f"minute >= toStartOfInterval($__fromTime, {BUCKET}) AND minute < toStartOfInterval($__toTime, {BUCKET})"
)
"""The buckets that the range covers to their end."""

WHOLE_RANGE = f"start = toStartOfInterval($__fromTime, {BUCKET}), stop = toStartOfInterval($__toTime, {BUCKET})"
"""The same, for a view with parameters."""

RANGE = "minute >= $__fromTime AND minute < $__toTime"
UNTIL = "toDateTime64($__toTime, 3)"
"""The end of the range, for columns finer than a second: against a DateTime, ClickHouse's index passes over rows of the
second before it."""

RANGE_OF_VIEW = "start = $__fromTime, stop = $__toTime"
RECENT = "minute >= $__toTime - INTERVAL 15 MINUTE AND minute < $__toTime"
"""What "now" means: the last quarter of an hour of the range."""

RECENT_OF_VIEW = "start = $__toTime - INTERVAL 15 MINUTE, stop = $__toTime"
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
