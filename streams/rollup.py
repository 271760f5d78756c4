"""A frame of events to one-minute partials: pure Polars, no Kafka, no ClickHouse, no clock.

All sums are signed integers (mW, ppm, us, tokens), so that any split of the events into flushes, in any order, adds up
to the same. A rollup row belongs to one topic partition.
"""

from collections.abc import Callable, Mapping

import polars as pl

from streams.groups import group_numbers

Rollups = dict[str, pl.DataFrame]

_MINUTE = pl.col("time").first().dt.truncate("1m").cast(pl.Datetime("ms", "UTC")).alias("minute")
_BUCKETS = 2048
"""More than there are: an exponent has 11 bits."""
_NEVER_FIRST = pl.lit(2**63 - 1, pl.Int64)
_NEVER_LAST = pl.lit(0, pl.Int64)


def roll_up(name: str, frame: pl.DataFrame) -> Rollups:
    """The partials of an event type's rollup tables, by table name; none for a type without rollups.

    The frame has the event type's columns, topic_partition, offset and arrived. The partials have the tables' columns
    but ``upto``, which only the sink knows.
    """
    return {table: build(frame) for table, build in _TABLES.get(name, {}).items()}


def _grouped(frame: pl.DataFrame, keys: tuple[str, ...], *values: pl.Expr) -> pl.DataFrame:
    return _summed(frame.with_columns(group_numbers(frame, keys)), keys, *values).drop("group")


def _summed(numbered: pl.DataFrame, keys: tuple[str, ...], *values: pl.Expr) -> pl.DataFrame:
    return numbered.group_by("group").agg(
        _MINUTE,
        *(pl.col(key).first() for key in (*keys, "topic_partition")),
        pl.len().cast(pl.Int64).alias("samples"),
        *values,
        pl.col("arrived").min().alias("arrived_min"),
    )


def _scaled(value: str, factor: float, name: str, weight: pl.Expr | None = None) -> pl.Expr:
    """The sum of a value as integers of 1/factor, each sample rounded by itself (half to even)."""
    whole = (pl.col(value) * factor).round().cast(pl.Int64)
    return (whole if weight is None else whole * weight).sum().alias(name)


def _known(value: str, name: str, weight: pl.Expr | None = None) -> pl.Expr:
    known = pl.col(value).is_not_null()
    return (known.cast(pl.Int64) if weight is None else known * weight).sum().cast(pl.Int64).alias(name)


def _extremes(*values: str) -> list[pl.Expr]:
    return [e for v in values for e in (pl.col(v).min().alias(f"{v}_min"), pl.col(v).max().alias(f"{v}_max"))]


def _reading(which: str) -> pl.Expr:
    """The first or last counter reading of the group, as (time, J)."""
    known = pl.col("joules").is_not_null()
    time = pl.col("time").to_physical().filter(known)
    at = time.arg_min() if which == "first" else time.arg_max()
    never = _NEVER_FIRST if which == "first" else _NEVER_LAST
    return pl.struct(
        time.get(at, null_on_oob=True).fill_null(never).cast(pl.Datetime("ns", "UTC")).alias("time"),
        pl.col("joules").filter(known).get(at, null_on_oob=True).fill_null(0.0).alias("joules"),
    ).alias(f"joules_{which}")


def _power(frame: pl.DataFrame) -> pl.DataFrame:
    return _grouped(
        frame,
        ("site", "node", "meter", "role"),
        _known("watts", "power_samples"),
        _scaled("watts", 1e3, "milliwatts"),
        _known("temperature_celsius", "temperature_samples"),
        _scaled("temperature_celsius", 1e3, "millicelsius"),
        *_extremes("watts", "temperature_celsius"),
        _reading("first"),
        _reading("last"),
    )


def _utilization(frame: pl.DataFrame) -> pl.DataFrame:
    devices = pl.col("devices")
    both = pl.col("memory_used_bytes").is_not_null()
    return _grouped(
        frame,
        ("site", "node", "device", "vendor", "model"),
        devices.sum().alias("device_samples"),
        _known("utilization", "utilization_samples", devices),
        _scaled("utilization", 1e6, "utilization_ppm", devices),
        _known("memory_used_bytes", "memory_samples", devices),
        (pl.col("memory_used_bytes") * devices).sum().alias("memory_used_bytes"),
        (pl.col("memory_limit_bytes").filter(both) * devices.filter(both)).sum().alias("memory_limit_bytes"),
        _known("watts", "power_samples", devices),
        _scaled("watts", 1e3, "milliwatts", devices),
        _known("temperature_celsius", "temperature_samples", devices),
        _scaled("temperature_celsius", 1e3, "millicelsius", devices),
        *_extremes("utilization", "watts", "temperature_celsius"),
    )


_TOKEN_SUMS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "reasoning_tokens")
_USAGE = (
    pl.col("requests").sum(),
    *(pl.col(column).sum() for column in _TOKEN_SUMS),
    pl.col("requests")
    .filter(pl.col("input_tokens").is_null() | pl.col("output_tokens").is_null())
    .sum()
    .alias("unknown_requests"),
)


def _tokens(frame: pl.DataFrame) -> pl.DataFrame:
    requests = pl.col("requests")
    keys = ("site", "region", "gateway", "provider", "model")
    numbered = frame.with_columns(group_numbers(frame, keys))
    partials = _summed(
        numbered,
        keys,
        *_USAGE,
        requests.filter(pl.col("error_type") != "").sum().alias("errors"),
        *(
            expression
            for column in ("duration", "first_token")
            for expression in (
                _known(f"{column}_seconds", f"{column}_samples", requests),
                _scaled(f"{column}_seconds", 1e6, f"{column}_microseconds", requests),
            )
        ),
    )
    for column in ("duration", "first_token"):
        histogram = _histogram(numbered, f"{column}_seconds", f"{column}_histogram")
        partials = partials.join(histogram, on="group", how="left")
    return partials.drop("group")


def _histogram(numbered: pl.DataFrame, value: str, name: str) -> pl.DataFrame:
    """Requests by bucket: k holds durations from 2^(k/4) to 2^((k+1)/4) us; shorter than 1 us counts as 1 us.

    Buckets grow by 2^(1/4): a quantile read from them is off by at most 9 %. floor(4 log2(x)) is the exponent of x^4,
    which every engine says alike; a logarithm may be rounded up or down at a bucket's edge.
    """
    microseconds = pl.max_horizontal(pl.col(value) * 1e6, 1.0)
    square = microseconds * microseconds
    bucket = (square * square).reinterpret(dtype=pl.Int64) // 2**52 - 1023
    return (
        numbered.select("group", "requests", value)  # a filter copies what it is given
        .filter(pl.col(value).is_not_null())
        .group_by((pl.col("group") * _BUCKETS + bucket).alias("in group"))
        .agg(pl.col("requests").sum().alias("count"))
        .group_by((pl.col("in group") // _BUCKETS).alias("group"))
        .agg(pl.struct((pl.col("in group") % _BUCKETS).cast(pl.Int16).alias("bucket"), "count").alias(name))
    )


def _usage(frame: pl.DataFrame) -> pl.DataFrame:
    return _grouped(frame, ("tenant", "package", "model"), *_USAGE)


def _links(frame: pl.DataFrame) -> pl.DataFrame:
    return _grouped(
        frame,
        ("link", "a_site", "z_site"),
        pl.col("a_to_z_bytes").sum(),
        pl.col("z_to_a_bytes").sum(),
        pl.col("errors").sum(),
        _known("capacity_bits_per_second", "capacity_samples"),
        pl.col("capacity_bits_per_second").sum(),
        _known("latency_seconds", "latency_samples"),
        _scaled("latency_seconds", 1e9, "latency_nanoseconds"),
        _known("rx_power_dbm", "rx_power_samples"),
        _scaled("rx_power_dbm", 1e3, "rx_power_millidbm"),
        *_extremes("latency_seconds", "rx_power_dbm"),
    )


_TABLES: Mapping[str, Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]]] = {
    "power": {"power_1m": _power},
    "utilization": {"utilization_1m": _utilization},
    "tokens": {"tokens_1m": _tokens, "usage_1m": _usage},
    "links": {"links_1m": _links},
}
