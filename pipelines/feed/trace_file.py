"""Reads a trace's Parquet file and checks it whole before anything is sent: an error names the column or the row."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import polars as pl

from schemas.errors import WattStreamError
from schemas.events import EventType

ColumnKind = Literal["time", "integer", "real", "text"]

_EXPECTED: dict[ColumnKind, str] = {
    "time": "times (timestamp)",
    "integer": "whole numbers",
    "real": "numbers",
    "text": "text",
}
_TYPES: dict[ColumnKind, pl.DataType] = {
    "time": pl.Datetime("ns", "UTC"),
    "integer": pl.Int64(),
    "real": pl.Float64(),
    "text": pl.String(),
}
_YEARS = (1970, 2105)
"""What a DateTime of ClickHouse can hold."""


def read_trace(path: Path, columns: Mapping[str, ColumnKind]) -> pl.DataFrame:
    """The named columns of a Parquet file in file order, nothing null or empty; times without a zone are taken as UTC.

    :raises WattStreamError: where the file can't be read, has no rows, or a column is missing, of another type or null.
    """
    try:
        frame = pl.read_parquet(path, glob=False)
    except FileNotFoundError as error:
        raise WattStreamError(f"{path} isn't there.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise WattStreamError(f"{path} can't be read as a Parquet file: {str(error).splitlines()[0]}.") from error
    wanted = ", ".join(f"{name} ({_EXPECTED[kind]})" for name, kind in columns.items())
    for name, kind in columns.items():
        if name not in frame.columns:
            raise WattStreamError(f"{path} has no column {name}. It must have {wanted}; it has {frame.columns}.")
        if not _is(frame.schema[name], kind):
            raise WattStreamError(
                f"{path}: column {name} is {frame.schema[name]} where {_EXPECTED[kind]} are expected. "
                f"It must have {wanted}."
            )
    if frame.is_empty():
        raise WattStreamError(f"{path} has no rows.")
    for name, kind in columns.items():
        if kind == "time":
            _refuse(path, frame, ~pl.col(name).dt.year().is_between(*_YEARS), f"{name} is before 1970 or after 2105")
    typed = frame.select(_typed(name, kind, frame.schema[name]) for name, kind in columns.items())
    for name, kind in columns.items():
        _refuse(path, typed, pl.col(name).is_null(), f"{name} is null or out of range")
        if kind == "text":
            _refuse(path, typed, pl.col(name) == "", f"{name} is empty")
    return typed


def check_events(path: Path, rows: pl.DataFrame, event_type: EventType, events: pl.DataFrame, now: datetime) -> None:
    """Hold each event against what such an event can't be; ``rows`` are the file's, in the same order.

    :raises WattStreamError: naming the first row of the file that makes an impossible event, and why.
    """
    arrived = events.with_columns(arrived=pl.lit(now).cast(pl.Datetime("ms", "UTC")))
    found = arrived.select(
        rule.fill_null(False).arg_true().first().alias(reason) for reason, rule in event_type.impossible
    )
    first = {reason: row for reason, row in found.row(0, named=True).items() if row is not None}
    if first:
        reason, row = min(first.items(), key=lambda item: item[1])
        raise WattStreamError(f"{path}, {_row(rows, row)}: {reason}. Nothing was sent.")


def _is(dtype: pl.DataType, kind: ColumnKind) -> bool:
    match kind:
        case "time":
            return isinstance(dtype, pl.Datetime)
        case "integer":
            return dtype.is_integer()
        case "real":
            return dtype.is_numeric()
        case "text":
            return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _typed(name: str, kind: ColumnKind, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        value = value.dt.replace_time_zone("UTC") if dtype.time_zone is None else value.dt.convert_time_zone("UTC")
    return value.cast(_TYPES[kind], strict=False)


def _refuse(path: Path, frame: pl.DataFrame, wrong: pl.Expr, reason: str) -> None:
    row = frame.select(wrong.arg_true().first()).item()
    if row is not None:
        raise WattStreamError(f"{path}, {_row(frame, row)}: {reason}. Nothing was sent.")


def _row(frame: pl.DataFrame, row: int) -> str:
    values = ", ".join(f"{name}={str(value)[:60]}" for name, value in frame.row(row, named=True).items())
    return f"row {row + 1} (counted from 1; {values})"
