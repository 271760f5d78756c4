"""What makes two messages the same event: a 128-bit stable hash of the identity's parts."""

import polars as pl
import polars_hash as plh

from schemas.events import UNIT_SEPARATOR, EventType

_HALF = pl.lit(2**64, dtype=pl.UInt128)


def with_identity(event_type: EventType, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with ``identity_hi`` and ``identity_lo``, the halves of xxh3-128 over the identity's parts.

    Parts are joined by U+001F, time as integer nanoseconds since 1970, so that the same event hashes alike in every
    process, release and language. 128 bits: at 10^12 events the odds of one false duplicate are 10^-15.
    """
    parts = [_part(event_type, column) for column in event_type.identity]
    hashed = frame.select(plh.concat_str(parts, separator=UNIT_SEPARATOR).nchash.xxh3_128().alias("identity"))
    return frame.with_columns(
        hashed.select(
            (pl.col("identity") // _HALF).cast(pl.UInt64).alias("identity_hi"),
            pl.col("identity").cast(pl.UInt64, wrap_numerical=True).alias("identity_lo"),
        )
    )


def checksum(frame: pl.DataFrame) -> int:
    """The sum modulo 2^64 of the identities' low halves: the same in any order and any split."""
    return int(frame.get_column("identity_lo").cast(pl.UInt128).sum()) % 2**64 if frame.height else 0


def _part(event_type: EventType, column: str) -> pl.Expr:
    if event_type.columns[column].kind == "time":
        return pl.col(column).to_physical().cast(pl.String)
    return pl.col(column).fill_null("")
