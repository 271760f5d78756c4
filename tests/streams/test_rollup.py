"""A rollup adds up to the same however its events are split, and equals what plain Python makes of them."""

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import BY_NAME, EventType
from schemas.tables import ROLLUPS
from streams.rollup import roll_up

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
START = datetime(2026, 1, 31, 23, 58, tzinfo=UTC)  # minutes of two months

seconds = st.integers(0, 239)
names = st.sampled_from(["a", "b"])
reals = st.none() | st.sampled_from([0.0, 0.0005, 0.0015, 1.25, -3.5, 1e9, 123.456789])
positive = st.none() | st.sampled_from([0.0, 1e-7, 1e-6, 0.001, 0.5, 1.0, 2.0, 3600.0])
counts = st.none() | st.sampled_from([0, 1, 10**12, 10**15])

EVENTS = {
    "power": st.fixed_dictionaries(
        {"site": names, "node": names, "meter": names, "role": st.just("it"), "watts": reals}
        | {"joules": positive, "temperature_celsius": reals}
    ),
    "utilization": st.fixed_dictionaries(
        {"site": names, "node": names, "device": names, "vendor": names, "model": names, "devices": st.integers(1, 8)}
        | {"utilization": st.none() | st.floats(0, 1), "memory_used_bytes": counts, "memory_limit_bytes": counts}
        | {"temperature_celsius": reals, "watts": positive}
    ),
    "tokens": st.fixed_dictionaries(
        dict.fromkeys(("gateway", "region", "site", "tenant", "package", "provider", "model"), names)
        | {"requests": st.integers(1, 1000), "error_type": st.sampled_from(["", "timeout"])}
        | {f"{c}_tokens": counts for c in ("input", "output", "cache_read", "cache_creation", "reasoning")}
        | {"duration_seconds": positive, "first_token_seconds": positive}
    ),
    "links": st.fixed_dictionaries(
        {"link": names, "a_site": names, "z_site": names, "a_to_z_bytes": counts, "z_to_a_bytes": counts}
        | {"capacity_bits_per_second": counts, "latency_seconds": positive, "rx_power_dbm": reals, "errors": counts}
    ),
}
ADDED = {name: st.lists(st.tuples(seconds, events), max_size=12) for name, events in EVENTS.items()}


def frame(event_type: EventType, events: list) -> pl.DataFrame:
    schema = dict(event_type.frame_schema)
    rows = [{"time": START + timedelta(seconds=s)} | event for s, event in events]
    made = pl.DataFrame(rows, schema=schema, strict=False)
    return made.with_columns(pl.col(pl.String).fill_null("")).with_columns(
        topic_partition=pl.lit(1, pl.UInt16),
        offset=pl.int_range(pl.len(), dtype=pl.Int64),
        place=pl.lit(0, pl.UInt32),
        arrived=pl.lit(START).cast(pl.Datetime("ms", "UTC")) + pl.duration(milliseconds=pl.int_range(pl.len())),
    )


KEYS = {
    "power_1m": ["site", "node", "meter", "role"],
    "utilization_1m": ["site", "node", "device", "vendor", "model"],
    "tokens_1m": ["site", "region", "gateway", "provider", "model"],
    "usage_1m": ["tenant", "package", "model"],
    "links_1m": ["link", "a_site", "z_site"],
}


def merged(table: str, parts: list[pl.DataFrame]) -> dict:
    """What the table's simple aggregate functions make of the parts."""
    found: dict = {}
    for part in parts:
        for row in part.iter_rows(named=True):
            key = (row["minute"], row["topic_partition"], *(row[k] for k in KEYS[table]))
            into = found.setdefault(key, {})
            for column, value in row.items():
                if column in (*KEYS[table], "minute", "topic_partition"):
                    continue
                if column not in into:
                    into[column] = histogram(value) if column.endswith("_histogram") else value
                elif column.endswith("_histogram"):
                    into[column] = {
                        k: into[column].get(k, 0) + histogram(value).get(k, 0)
                        for k in into[column].keys() | histogram(value).keys()
                    }
                else:
                    into[column] = combine(column, into[column], value)
    return found


def histogram(value: list[dict] | None) -> dict[int, int]:
    return {entry["bucket"]: entry["count"] for entry in value or []}


def combine(column: str, a: object, b: object) -> object:
    if column.endswith("_min") or column == "joules_first":
        return smaller(column, a, b, min)
    if column.endswith(("_max", "joules_last")):
        return smaller(column, a, b, max)
    return a + b  # type: ignore[operator]


def smaller(column: str, a: object, b: object, choose: object) -> object:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, dict):
        return choose(a, b, key=lambda reading: (reading["time"], reading["joules"]))  # type: ignore[operator]
    return choose(a, b)  # type: ignore[operator]


@pytest.mark.parametrize("name", list(EVENTS))
@quick
@given(data=st.data())
def test_any_split_in_any_order_adds_up_to_the_same(name: str, data: st.DataObject) -> None:
    event_type = BY_NAME[name]
    # Two readings of one counter at one time would tie; an identity that is there once rules them out.
    events = data.draw(ADDED[name].map(lambda drawn: list({(s, *e.values()): (s, e) for s, e in drawn}.values())))
    if name == "power":
        events = list({(s, e["site"], e["node"], e["meter"]): (s, e) for s, e in events}.values())
    whole = frame(event_type, events)
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(events), max_size=len(events)))
    shuffled = whole.with_columns(group=pl.Series(groups, dtype=pl.Int64)).sample(fraction=1, shuffle=True, seed=1)
    parts = [shuffled.filter(pl.col("group") == g).drop("group") for g in range(4)]
    for table in ROLLUPS[name]:
        once = merged(table, [roll_up(name, whole)[table]])
        assert merged(table, [roll_up(name, part)[table] for part in parts]) == once


@quick
@given(ADDED["tokens"])
def test_token_rollups_equal_plain_python(events: list) -> None:
    found = merged("tokens_1m", [roll_up("tokens", frame(BY_NAME["tokens"], events))["tokens_1m"]])
    expected: dict = defaultdict(lambda: defaultdict(int))
    for offset, (second, e) in enumerate(events):
        minute = (START + timedelta(seconds=second)).replace(second=0)
        into = expected[(minute, 1, *(e[k] for k in KEYS["tokens_1m"]))]
        into["samples"] += 1
        into["requests"] += e["requests"]
        for column in ("input", "output", "cache_read", "cache_creation", "reasoning"):
            into[f"{column}_tokens"] += e[f"{column}_tokens"] or 0
        into["unknown_requests"] += e["requests"] * (e["input_tokens"] is None or e["output_tokens"] is None)
        into["errors"] += e["requests"] * bool(e["error_type"])
        for column in ("duration", "first_token"):
            value = e[f"{column}_seconds"]
            into.setdefault(f"{column}_histogram", {})
            into[f"{column}_samples"] += e["requests"] * (value is not None)
            if value is not None:
                into[f"{column}_microseconds"] += round(value * 1e6) * e["requests"]
                bucket = math.floor(math.log2(max(value * 1e6, 1)) * 4)
                into[f"{column}_histogram"][bucket] = into[f"{column}_histogram"].get(bucket, 0) + e["requests"]
            else:
                into[f"{column}_microseconds"] += 0
        into.setdefault("arrived_min", START + timedelta(milliseconds=offset))
    assert found == {key: dict(value) for key, value in expected.items()}


@quick
@given(ADDED["power"])
def test_power_rollups_equal_plain_python(events: list) -> None:
    events = list({(s, e["site"], e["node"], e["meter"]): (s, e) for s, e in events}.values())
    found = merged("power_1m", [roll_up("power", frame(BY_NAME["power"], events))["power_1m"]])
    groups: dict = defaultdict(list)
    for second, e in events:
        time = START + timedelta(seconds=second)
        groups[(time.replace(second=0), 1, e["site"], e["node"], e["meter"], "it")].append((time, e))
    assert found.keys() == groups.keys()
    for key, group in groups.items():
        row = found[key]
        watts = [e["watts"] for _, e in group if e["watts"] is not None]
        counters = [(time, e["joules"]) for time, e in group if e["joules"] is not None]
        assert row["samples"] == len(group)
        assert (row["power_samples"], row["milliwatts"]) == (len(watts), sum(round(w * 1e3) for w in watts))
        assert (row["watts_min"], row["watts_max"]) == (min(watts, default=None), max(watts, default=None))
        if counters:
            assert (row["joules_first"]["time"], row["joules_first"]["joules"]) == min(counters)
            assert (row["joules_last"]["time"], row["joules_last"]["joules"]) == max(counters)
        else:
            assert row["joules_first"]["time"].year == 2262
            assert row["joules_last"]["time"].year == 1970


def test_sums_stay_exact_where_floats_would_not() -> None:
    """0.1 W a thousand times is 100 W to the milliwatt, and 10^15 tokens plus one is one more."""
    watts = [(0, {"site": "a", "node": "", "meter": str(i), "role": "it", "watts": 0.1}) for i in range(1000)]
    assert roll_up("power", frame(BY_NAME["power"], watts))["power_1m"]["milliwatts"].sum() == 100_000
    tokens = [(0, {"gateway": "g", "requests": 1, "input_tokens": n}) for n in (10**15, 1)]
    assert roll_up("tokens", frame(BY_NAME["tokens"], tokens))["usage_1m"]["input_tokens"].to_list() == [10**15 + 1]


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (1e-6, 0), (2e-6, 4), (1.0, 79), (2.0, 83), (1024e-6, 40), (1e7, 172)]
)
def test_a_bucket_begins_at_its_power_of_two(seconds: float, bucket: int) -> None:
    event = (0, {"gateway": "g", "requests": 3, "duration_seconds": seconds})
    (row,) = roll_up("tokens", frame(BY_NAME["tokens"], [event]))["tokens_1m"]["duration_histogram"].to_list()
    assert row == [{"bucket": bucket, "count": 3}]
    assert 2 ** (bucket / 4) <= max(seconds * 1e6, 1) < 2 ** ((bucket + 1) / 4)


@pytest.mark.parametrize("name", ["packages", "rates", "capacity"])
def test_a_type_without_rollups_has_none(name: str) -> None:
    assert roll_up(name, frame(BY_NAME[name], [])) == {}
