"""The importers up to Kafka: what the rows of the real files, and of broken ones, become."""

# ruff: noqa: DTZ001 - the files' times have no zone

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.feed.traces import KINDS, describe, import_trace, paced, trace_emitters, trace_events
from schemas.envelope import complete
from schemas.errors import UsageError, WattStreamError
from schemas.identity import with_identity
from schemas.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
AZURE = "llm/azure_llm_2023_code.parquet"
MOONCAKE = "llm/mooncake_conversation_0_30min.parquet"
HARVARD = "power/harvard_ipmi_2025-06-03_gpu_nodes.parquet"
BIOHPC = "gpu/biohpc_gpu_hourly_05_07_08_09_until_2025-07.parquet"


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"../shared/data/{name} isn't here")
    return path


def events_of(kind: str, path: Path, start: datetime | None = None) -> pl.DataFrame:
    return trace_events(KINDS[kind], path, start=start, now=NOW)


def identities(kind: str, events: pl.DataFrame) -> set:
    event_type = KINDS[kind].event_type
    frame = with_identity(event_type, complete(event_type, events))
    return set(zip(frame["identity_hi"], frame["identity_lo"], strict=True))


@pytest.mark.data
def test_azure_requests_and_tokens() -> None:
    events = events_of("azure-llm", real(AZURE))
    report = describe(KINDS["azure-llm"], real(AZURE), events)
    assert (report.requests, report.input_tokens, report.output_tokens) == (8819, 18_059_974, 245_896)
    ten_minutes = events.filter(
        pl.col("time").is_between(
            datetime(2023, 11, 16, 18, 30, tzinfo=UTC), datetime(2023, 11, 16, 18, 40, tzinfo=UTC), closed="left"
        )
    )
    assert (ten_minutes.height, ten_minutes["input_tokens"].sum(), ten_minutes["output_tokens"].sum()) == (
        2130,
        4_483_746,
        54_699,
    )
    assert len(identities("azure-llm", events)) == 8819


@pytest.mark.data
def test_mooncake_requests_that_look_alike_are_requests_of_their_own(tmp_path: Path) -> None:
    events = events_of("mooncake", real(MOONCAKE))
    report = describe(KINDS["mooncake"], real(MOONCAKE), events)
    assert (report.requests, report.input_tokens, report.output_tokens) == (5719, 73_604_194, 1_977_204)
    rows = pl.read_parquet(real(MOONCAKE))
    for name, copy in {
        "end": pl.concat([rows, rows[:10]]),
        "middle": pl.concat([rows[:500], rows[3:13], rows[500:]]),
    }.items():
        copy.write_parquet(tmp_path / f"{name}.parquet")
        copied = identities("mooncake", events_of("mooncake", tmp_path / f"{name}.parquet"))
        assert len(copied) == 5729
        assert identities("mooncake", events) < copied


@pytest.mark.data
def test_harvard_readings_roles_and_node_power() -> None:
    events = events_of("harvard-ipmi", real(HARVARD))
    report = describe(KINDS["harvard-ipmi"], real(HARVARD), events)
    assert (report.events, report.power_readings, report.temperature_readings) == (402_398, 268_996, 133_402)
    assert report.nodes == 329
    assert report.repeated == 0
    assert report.other_sensors == {}
    assert sum(report.roles.values()) == 402_398
    assert len(identities("harvard-ipmi", events)) == 402_398

    def node_power(role: str, meter: str | None = None) -> tuple[float, int]:
        hour = events.filter(pl.col("time").dt.hour() == 1, pl.col("role") == role, pl.col("watts").is_not_null())
        hour = hour if meter is None else hour.filter(pl.col("meter") == meter)
        means = hour.group_by("node").agg(pl.col("watts").mean())
        return round(means["watts"].sum(), 1), means.height

    assert node_power("node") == (5964.3, 329)
    assert node_power("chassis", "Chassis Power")[0] == pytest.approx(107_933, abs=1)  # why chassis is never totalled


@pytest.mark.data
def test_harvard_completeness_can_tell_silent_nodes() -> None:
    events = events_of("harvard-ipmi", real(HARVARD))
    emitters = trace_emitters(KINDS["harvard-ipmi"], events)
    assert emitters.height == 329
    assert emitters["node"].n_unique() == 329
    assert emitters["interval_seconds"].unique().to_list() == [60]
    assert emitters["until"].unique().to_list() == [datetime(2025, 6, 4, tzinfo=UTC)]
    assert emitters["since"].max() < datetime(2025, 6, 3, 1, tzinfo=UTC)
    silent = events.filter(pl.col("time").dt.hour().is_between(3, 20))
    heard = silent.join(emitters, left_on=["node", "meter"], right_on=["node", "emitter"], how="semi")
    assert heard["node"].n_unique() == 2


@pytest.mark.data
def test_biohpc_mean_power_of_a_gpu_to_the_milliwatt() -> None:
    events = events_of("biohpc", real(BIOHPC))
    assert events.height == len(identities("biohpc", events)) == 54_203
    devices = dict(events.select("node", "devices").unique().iter_rows())
    assert devices == {"cbsugpu05": 2, "cbsugpu07": 1, "cbsugpu08": 2, "cbsugpu09": 1}
    milliwatts = (pl.col("watts") * 1000).round().cast(pl.Int64) * pl.col("devices")
    means = events.group_by("node").agg((milliwatts.sum() / pl.col("devices").sum() / 1000).round(3))
    assert dict(means.iter_rows()) == {
        "cbsugpu05": 69.568,
        "cbsugpu07": 80.121,
        "cbsugpu08": 145.852,
        "cbsugpu09": 77.980,
    }
    assert "memory_used_bytes" not in events.columns
    assert events["utilization"].is_between(0, 1).all()


def azure_file(path: Path, **columns: object) -> Path:
    rows: dict[str, object] = {
        "TIMESTAMP": [datetime(2023, 11, 16, 18, minute) for minute in range(3)],
        "ContextTokens": [5, 6, 7],
        "GeneratedTokens": [1, 1, 1],
    }
    pl.DataFrame(rows | columns).write_parquet(path / "trace.parquet")
    return path / "trace.parquet"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ContextTokens": ["5", "6", "7"]}, "column ContextTokens is String where whole numbers are expected"),
        ({"ContextTokens": [5, None, 7]}, r"row 2 \(counted from 1; .*\): ContextTokens is null"),
        ({"GeneratedTokens": [1, 1, -4]}, r"row 3 .*GeneratedTokens=-4.*output_tokens is below 0"),
        ({"TIMESTAMP": [datetime(2023, 1, 1), datetime(2100, 1, 1), datetime(2023, 1, 1)]}, "row 2 .*ahead"),
        ({"TIMESTAMP": [datetime(1900, 1, 1)] * 3}, "row 1 .*TIMESTAMP is before 1970"),
        ({"ContextTokens": [5, 10**17, 7]}, "row 2 .*above"),
    ],
)
def test_a_broken_file_names_column_or_row_and_nothing_is_sent(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    path = azure_file(tmp_path, **columns)
    with pytest.raises(WattStreamError, match=message):
        import_trace(Settings(home=tmp_path / "home"), "azure-llm", path, wait=False)
    assert not (tmp_path / "home").exists()  # not even a manifest was begun


def test_a_file_of_another_kind_names_the_missing_column(tmp_path: Path) -> None:
    with pytest.raises(WattStreamError, match=r"has no column input_length.*it has"):
        events_of("mooncake", _renamed(azure_file(tmp_path), {"TIMESTAMP": "time", "ContextTokens": "timestamp"}))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "isn't there"), (b"not parquet at all", "can't be read as a Parquet file")]
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WattStreamError, match=message):
        events_of("azure-llm", path)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    path = azure_file(tmp_path)
    pl.read_parquet(path).clear().write_parquet(path)
    with pytest.raises(WattStreamError, match="has no rows"):
        events_of("azure-llm", path)


def harvard_file(folder: Path, **columns: object) -> Path:
    rows: dict[str, object] = {
        "node": ["n1", "n1", "n2"],
        "timestamp": [datetime(2025, 6, 3, 1)] * 3,
        "sensor": ["Sys Power", "Flux Capacitor", "Riser Temp"],
        "value": [10.0, 1210.0, 20.0],
        "unit": ["Watts", "Watts", "degrees C"],
    }
    pl.DataFrame(rows | columns).write_parquet(folder / "h.parquet")
    return folder / "h.parquet"


def test_a_sensor_that_the_map_does_not_know_is_kept_counted_and_named(tmp_path: Path) -> None:
    path = harvard_file(tmp_path)
    events = events_of("harvard-ipmi", path)
    report = describe(KINDS["harvard-ipmi"], path, events)
    assert report.events == 3
    assert report.roles == {"other": 2, "node": 1}
    assert report.other_sensors == {"Flux Capacitor": 1, "Riser Temp": 1}
    expected = trace_emitters(KINDS["harvard-ipmi"], events).sort("node")
    assert expected.select("node", "emitter").rows() == [("n1", "Sys Power"), ("n2", "Riser Temp")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"unit": ["Watts", "RPM", "degrees C"]}, "row 2 .*has none of hw.power"),
        ({"value": [10.0, float("nan"), 20.0]}, "row 2 .*hw.power is not a finite number"),
        ({"node": ["", "n1", "n2"]}, "row 1 .*node is empty"),
    ],
)
def test_an_impossible_reading_names_its_row(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(WattStreamError, match=message):
        events_of("harvard-ipmi", harvard_file(tmp_path, **columns))


def test_a_server_whose_accelerators_are_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    pl.DataFrame(
        {
            "name": ["cbsugpu99"],
            "timestamp": [datetime(2025, 1, 1)],
            "powerave": [1.0],
            "tempave": [1.0],
            "utilave": [1.0],
        }
    ).write_parquet(path)
    with pytest.raises(WattStreamError, match=r"row 1 .*cbsugpu99.*devices is below 1"):
        events_of("biohpc", path)


def test_start_is_for_traces_without_a_date_and_not_in_the_future(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dates of its own"):
        events_of("azure-llm", azure_file(tmp_path), start=NOW)
    path = tmp_path / "m.parquet"
    pl.DataFrame({"timestamp": [0, 60_000], "input_length": [1, 2], "output_length": [1, 2]}).write_parquet(path)
    placed = events_of("mooncake", path, start=datetime(2024, 5, 1, tzinfo=UTC))
    assert placed["time"].to_list() == [datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 0, 1, tzinfo=UTC)]
    with pytest.raises(UsageError, match="in the future"):
        events_of("mooncake", path, start=NOW + timedelta(minutes=10))
    with pytest.raises(UsageError, match="There is no kind"):
        import_trace(Settings(home=tmp_path), "azure", path)
    with pytest.raises(UsageError, match="above 0"):
        import_trace(Settings(home=tmp_path), "mooncake", path, speed=0)


def test_a_time_that_is_not_in_the_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pl.DataFrame({"timestamp": [0, -1], "input_length": [1, 2], "output_length": [1, 2]}).write_parquet(path)
    with pytest.raises(WattStreamError, match=r"row 2 .*timestamp=-1.*time is missing"):
        events_of("mooncake", path)


@given(
    gaps=st.lists(st.integers(0, 10 * 10**9), min_size=1, max_size=50),
    speed=st.floats(0.5, 1000),
)
def test_a_paced_trace_sends_every_row_once_and_none_before_it_is_due(gaps: list[int], speed: float) -> None:
    times = np.cumsum(gaps)
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    sent = []
    for first, end in paced(times, speed, lambda: clock[0], sleep):
        due = (times[end - 1] - times[0]) / 1e9 / speed
        assert clock[0] - 100.0 >= due - 1e-9
        sent += range(first, end)
    assert sent == list(range(len(times)))
    assert clock[0] - 100.0 <= (times[-1] - times[0]) / 1e9 / speed + 0.2


def _renamed(path: Path, names: dict[str, str]) -> Path:
    pl.read_parquet(path).rename(names).write_parquet(path)
    return path
