"""Options that several commands have, and the times that people write."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import UsageError

Home = Annotated[
    Path | None, typer.Option("--home", help="Where all state lives (WATTSTREAM_HOME; default .wattstream).")
]
PortBase = Annotated[
    int | None, typer.Option("--port-base", help="First of the 20 ports of this stack (WATTSTREAM_PORT_BASE; 18800).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

OfTopic = Annotated[
    str | None, typer.Option("--topic", help="Only of this topic: tokens, or wattstream.tokens.v1.", metavar="TOPIC")
]


def time_of(option: str, text: str) -> datetime:
    """A time in ISO 8601, UTC unless it says otherwise.

    :raises UsageError: where it is none.
    """
    try:
        given = datetime.fromisoformat(text)
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {text!r} is not a time like 2026-05-01T12:00 (UTC).") from error


def moment(option: str, text: str, now: datetime) -> datetime:
    """Such a time, or an age before ``now`` such as 30m, 12h or 7d.

    :raises UsageError: where it is neither.
    """
    age = re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII)
    if age:
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[age[2]]
        try:
            return now - timedelta(**{unit: int(age[1])})
        except OverflowError:  # before the year 1
            return datetime.min.replace(tzinfo=UTC)
    try:
        return time_of(option, text)
    except UsageError as error:
        raise UsageError(
            f"{option} {text!r} is neither a time like 2026-05-01T12:00 (UTC) nor an age like 30m, 12h or 7d."
        ) from error
