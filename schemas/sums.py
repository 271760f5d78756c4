"""What each integer sum of a one-minute rollup must be, as SQL over its raw table: how rollups are held against raw,
and answered as they were known at a time.

The stream workers add up the same in Polars; that the two agree is what `verify` and the audit check. ClickHouse and
Polars both round half to even.
"""


def _known(column: str, weight: str) -> str:
    return f"sumIf({weight}, isNotNull({column}))"


def _scaled(column: str, factor: str, weight: str = "1") -> str:
    return f"sum(toInt64(round({column} * {factor})) * {weight})"


# Of what a device holds, summed over many devices and minutes, 64 bits are too few.
_WIDE = frozenset(["memory_used_bytes", "memory_limit_bytes"])

_USAGE = {
    "requests": "sum(requests)",
    "input_tokens": "sum(input_tokens)",
    "output_tokens": "sum(output_tokens)",
    "cache_read_tokens": "sum(cache_read_tokens)",
    "cache_creation_tokens": "sum(cache_creation_tokens)",
    "reasoning_tokens": "sum(reasoning_tokens)",
    "unknown_requests": "sumIf(requests, isNull(input_tokens) OR isNull(output_tokens))",
}

SUMS: dict[str, dict[str, str]] = {
    "power_1m": {
        "samples": "count()",
        "power_samples": "count(watts)",
        "milliwatts": _scaled("watts", "1e3"),
        "temperature_samples": "count(temperature_celsius)",
        "millicelsius": _scaled("temperature_celsius", "1e3"),
    },
    "utilization_1m": {
        "samples": "count()",
        "device_samples": "sum(devices)",
        "utilization_samples": _known("utilization", "devices"),
        "utilization_ppm": _scaled("utilization", "1e6", "devices"),
        "memory_samples": _known("memory_used_bytes", "devices"),
        "memory_used_bytes": "sum(memory_used_bytes * devices)",
        "memory_limit_bytes": "sumIf(memory_limit_bytes * devices, isNotNull(memory_used_bytes))",
        "power_samples": _known("watts", "devices"),
        "milliwatts": _scaled("watts", "1e3", "devices"),
        "temperature_samples": _known("temperature_celsius", "devices"),
        "millicelsius": _scaled("temperature_celsius", "1e3", "devices"),
    },
    "tokens_1m": {"samples": "count()"}
    | _USAGE
    | {
        "errors": "sumIf(requests, error_type != '')",
        "duration_samples": _known("duration_seconds", "requests"),
        "duration_microseconds": _scaled("duration_seconds", "1e6", "requests"),
        "first_token_samples": _known("first_token_seconds", "requests"),
        "first_token_microseconds": _scaled("first_token_seconds", "1e6", "requests"),
    },
    "usage_1m": {"samples": "count()"} | _USAGE,
    "links_1m": {
        "samples": "count()",
        "a_to_z_bytes": "sum(a_to_z_bytes)",
        "z_to_a_bytes": "sum(z_to_a_bytes)",
        "errors": "sum(errors)",
        "capacity_samples": "count(capacity_bits_per_second)",
        "capacity_bits_per_second": "sum(capacity_bits_per_second)",
        "latency_samples": "count(latency_seconds)",
        "latency_nanoseconds": _scaled("latency_seconds", "1e9"),
        "rx_power_samples": "count(rx_power_dbm)",
        "rx_power_millidbm": _scaled("rx_power_dbm", "1e3"),
    },
}
"""By rollup table: each of its integer sums, as SQL over the raw rows of a minute. Histograms, extremes and counter
readings are not here."""


def of_raw(table: str) -> str:
    """Columns of a SELECT over raw rows: each sum of a rollup table as ``NAME_sum``, Int64."""
    return ", ".join(f"toInt64(ifNull({sql}, 0)) AS {name}_sum" for name, sql in SUMS[table].items())


def named(table: str) -> str:
    """Columns of a SELECT over raw rows, one a line: each sum of a rollup table by its name and type there."""
    return ",\n    ".join(
        f"{'toInt128' if name in _WIDE else 'toInt64'}(ifNull({sql}, 0)) AS {name}" for name, sql in SUMS[table].items()
    )


def of_rollup(table: str) -> str:
    """The same columns over the rollup table's own rows; of a sum over 2^63 the lower half, on both sides."""
    return ", ".join(f"toInt64(sum({name})) AS {name}_sum" for name in SUMS[table])
