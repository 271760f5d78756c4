"""Traces of gateway requests: what their rows are as token events."""

from datetime import UTC, datetime

import polars as pl

DEFAULT_START = datetime(2025, 1, 1, tzinfo=UTC)
"""Where a trace without a date is placed: fixed, so that a second import gives the same events."""

_LONGEST_MS = 30 * 366 * 24 * 3600 * 1000


def azure_llm(rows: pl.DataFrame) -> pl.DataFrame:
    """One request a row of an Azure LLM inference trace; its times have no zone and are taken as UTC."""
    return _requests(
        "azure-llm", rows.select(time="TIMESTAMP", input_tokens="ContextTokens", output_tokens="GeneratedTokens")
    )


def mooncake(rows: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """One request a row of a Mooncake trace; ``timestamp`` counts ms from ``start``.

    The prefix blocks (``hash_ids``) could tell what a cache might have held, not what it did: cache tokens stay
    unknown. A row before the start or decades after it has no time here and is found impossible.
    """
    origin = pl.lit(start).cast(pl.Datetime("ns", "UTC"))
    since_start = pl.when(pl.col("timestamp").is_between(0, _LONGEST_MS)).then("timestamp")
    return _requests(
        "mooncake",
        rows.select(
            time=origin + pl.duration(milliseconds=since_start, time_unit="ns"),
            input_tokens="input_length",
            output_tokens="output_length",
        ),
    )


def _requests(kind: str, requests: pl.DataFrame) -> pl.DataFrame:
    """Requests of a trace that names none of them.

    Rows that look alike are requests of their own, so the id says which of its like a row is. The file's name, digest
    and row numbers are left out on purpose: the same requests in a longer copy of the file are still the same.
    """
    content = ["time", "input_tokens", "output_tokens"]
    occurrence = pl.int_range(pl.len()).over(content)
    return requests.with_columns(
        source=pl.lit(f"trace:{kind}"),
        gateway=pl.lit(kind),
        id=pl.concat_str(
            pl.col("time").to_physical(), pl.col("input_tokens"), pl.col("output_tokens"), occurrence, separator="-"
        ),
    )
