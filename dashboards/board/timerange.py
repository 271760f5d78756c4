"""Grafana's time ranges and intervals: ``now-6h``, ``now/d``, epoch milliseconds, ISO 8601; pure, given the clock."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

UNITS: dict[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds of a unit; months and years go by the calendar."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2106, 2, 7, tzinfo=UTC)
"""What ClickHouse's DateTime can hold."""

# Grafana rounds an interval to these seconds: up to the first number, the second is taken (rangeutil.roundInterval).
ROUNDED: tuple[tuple[float, int], ...] = (
    (1.5, 1), (3.5, 2), (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300),
    (750, 600), (1050, 900), (1500, 1200), (2700, 1800), (5400, 3600), (9000, 7200), (16_200, 10_800),
    (32_400, 21_600), (86_400, 43_200), (604_800, 86_400), (1_814_400, 604_800), (3_628_800, 2_592_000),
)  # fmt: skip

_STEP = re.compile(r"([+-])(\d{1,9})(ms|[smhdwMy])|/([smhdwMy])")


class TimeError(ValueError):
    """A time that can't be read; the message says which and what is expected."""


@dataclass(frozen=True)
class TimeRange:
    """From ``start`` to ``stop``, UTC."""

    start: datetime
    stop: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.stop - self.start).total_seconds()


def seconds(text: str) -> float:
    """``1m`` as 60.0.

    :raises TimeError: where it is not a number and a unit.
    """
    found = re.fullmatch(r"(\d{1,9})(ms|[smhdw])", text.strip().lstrip(">"))
    if not found:
        raise TimeError(f"{text!r} is not a duration like 30s, 1m or 2h.")
    return int(found[1]) * UNITS[found[2]]


def moment(text: str, now: datetime, *, end: bool = False) -> datetime:
    """A time as Grafana's URLs write it; rounded with ``/d`` it is the start of the day, or with ``end`` its end.

    :raises TimeError: where it can't be read.
    """
    text = text.strip()
    if text.startswith("now"):
        found = _relative(text[3:], now, end=end)
    elif re.fullmatch(r"-?\d{1,15}", text):
        found = _epoch(int(text))
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise TimeError(
                f"{text!r} is not a time: write now-6h, now/d, milliseconds since 1970, or 2023-11-16T18:00:00Z."
            ) from None
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return min(max(found, EARLIEST), LATEST)


def time_range(start: str, stop: str, now: datetime) -> TimeRange:
    """Both ends.

    :raises TimeError: where one can't be read, or the range is empty.
    """
    found = TimeRange(moment(start, now), moment(stop, now, end=True))
    if found.start >= found.stop:
        raise TimeError(f"The range from {start} to {stop} is empty: its end is not after its start.")
    return found


def interval_seconds(span: TimeRange, points: int, least: float) -> int:
    """The width of a bucket, s: a round number that gives about ``points`` buckets, and not less than ``least``."""
    raw = span.seconds / max(points, 1)
    rounded = next((width for limit, width in ROUNDED if raw < limit), 31_536_000)
    return max(rounded, int(least), 1)


def quantised(now: datetime, step: float) -> datetime:
    """``now``, rounded down to ``step`` seconds, so that all who ask within a step ask the same."""
    if step <= 0:
        return now
    return datetime.fromtimestamp(now.timestamp() // step * step, UTC)


def _epoch(milliseconds: int) -> datetime:
    try:
        return EARLIEST + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise TimeError(f"{milliseconds} ms since 1970 is no year that can be written.") from None


def _relative(steps: str, now: datetime, *, end: bool) -> datetime:
    found, position = now, 0
    while position < len(steps):
        step = _STEP.match(steps, position)
        if not step:
            raise TimeError(f"'now{steps}' is not a time: write now, now-6h, now-1d/d.")
        position = step.end()
        try:
            rounding = step[4]
            found = _rounded(found, rounding, end=end) if rounding else _shifted(found, int(step[1] + step[2]), step[3])
        except (OverflowError, ValueError):
            raise TimeError(f"'now{steps}' is too far away.") from None
    return found


def _shifted(at: datetime, amount: int, unit: str) -> datetime:
    if unit in UNITS:
        return at + timedelta(seconds=amount * UNITS[unit])
    months = at.year * 12 + at.month - 1 + amount * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, monthrange(year, month + 1)[1]))


def _rounded(at: datetime, unit: str, *, end: bool) -> datetime:
    floor = at.replace(microsecond=0)
    if unit != "s":
        floor = floor.replace(second=0)
    if unit in "hdwMy":
        floor = floor.replace(minute=0)
    if unit in "dwMy":
        floor = floor.replace(hour=0)
    if unit == "w":
        floor -= timedelta(days=floor.weekday())  # weeks start on Monday (ISO 8601)
    if unit in "My":
        floor = floor.replace(day=1)
    if unit == "y":
        floor = floor.replace(month=1)
    return _shifted(floor, 1, unit) - timedelta(milliseconds=1) if end else floor
