from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.board.data import with_times
from dashboards.board.draw import draw, reduce

T = [datetime(2026, 1, 1, 0, minute, tzinfo=UTC) for minute in range(3)]
MS = [1767225600000, 1767225660000, 1767225720000]
TIME = pa.timestamp("s", tz="UTC")


def panel(kind: str, **options: Any) -> dict[str, Any]:
    defaults = {"unit": "watt"} | options.pop("defaults", {})
    return {
        "type": kind,
        "title": "t",
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": options.pop("overrides", [])},
    }


def test_a_long_answer_becomes_one_line_a_label_with_nulls_where_there_is_nothing() -> None:
    table = pa.table(
        {
            "time": pa.array([T[0], T[0], T[1], T[2]], TIME),
            "site": ["b", "a", "a", "b"],
            "value": pa.array([1.0, 2.0, None, 4.0]),
        }
    )
    drawn = draw(panel("timeseries", defaults={"displayName": "${__field.labels.site}"}), [table])
    assert drawn["times"] == MS
    assert [(one["name"], one["values"]) for one in drawn["series"]] == [
        ("a", [2.0, None, None]),
        ("b", [1.0, None, 4.0]),
    ]


def test_a_series_without_a_single_number_is_not_drawn_and_a_panel_without_series_is_empty() -> None:
    table = pa.table({"time": pa.array(T, TIME), "value": pa.array([None, None, None], pa.float64())})
    drawn = draw(panel("timeseries"), [table])
    assert drawn["series"] == []
    assert drawn["empty"]


def test_without_a_display_name_a_line_is_called_by_column_and_labels() -> None:
    table = pa.table({"time": pa.array(T, TIME), "site": ["a"] * 3, "p50": [1, 2, 3], "p95": [4, 5, 6]})
    assert [one["name"] for one in draw(panel("timeseries"), [table])["series"]] == ["p50 a", "p95 a"]


def test_a_tile_shows_the_last_number_there_is_and_keeps_the_gaps_of_its_trend() -> None:
    table = pa.table({"time": pa.array(T, TIME), "value": pa.array([1.5, None, None])})
    [number] = draw(panel("stat", reduceOptions={"calcs": ["lastNotNull"]}), [table])["numbers"]
    assert number["value"] == 1.5
    assert number["trend"] == [1.5, None, None]


def test_a_big_count_stays_a_whole_number() -> None:
    table = pa.table({"input_tokens": pa.array([18_059_974], pa.int64())})
    [number] = draw(panel("stat"), [table])["numbers"]
    assert number["value"] == 18_059_974
    assert isinstance(number["value"], int)


def test_a_tile_of_nothing_is_empty_and_not_zero() -> None:
    assert draw(panel("stat"), [pa.table({"x": pa.array([None], pa.float64())})])["empty"]
    assert draw(panel("stat"), [pa.table({"x": pa.array([], pa.float64())})])["empty"]


def test_a_number_that_json_has_no_word_for_is_missing() -> None:
    table = pa.table({"x": pa.array([float("nan"), float("inf"), 1.0])})
    assert draw(panel("table"), [table])["columns"][0]["values"] == [None, None, 1.0]


def test_bars_are_named_by_their_row() -> None:
    table = pa.table({"site": ["a", "b"], "load": [0.5, None]})
    drawn = draw(panel("bargauge", reduceOptions={"values": True, "calcs": ["lastNotNull"]}), [table])
    assert [(one["name"], one["value"]) for one in drawn["numbers"]] == [("a", 0.5)]


def test_an_override_changes_one_column_only() -> None:
    override = {
        "matcher": {"id": "byName", "options": "x"},
        "properties": [{"id": "unit", "value": "s"}, {"id": "custom.width", "value": 90}],
    }
    columns = draw(panel("table", overrides=[override]), [pa.table({"x": [1], "y": [2]})])["columns"]
    assert (columns[0]["field"]["unit"], columns[0]["field"]["custom"]) == ("s", {"width": 90})
    assert (columns[1]["field"]["unit"], columns[1]["field"].get("custom")) == ("watt", None)


def test_states_are_the_last_words_of_a_row_and_the_others_say_whose() -> None:
    table = pa.table({"time": pa.array(T, TIME), "site": ["a", "a", "b"], "state": ["heard", "silent", "heard"]})
    drawn = draw(panel("state-timeline", defaults={"displayName": "${__field.labels.site}"}), [table])
    assert [(one["name"], one["values"]) for one in drawn["series"]] == [
        ("a", ["heard", "silent", None]),
        ("b", [None, None, "heard"]),
    ]


def test_buckets_of_a_heat_map_are_in_the_order_of_their_numbers() -> None:
    table = pa.table({"time": pa.array([T[0]] * 3, TIME), "le": ["10.5", "9", "0.5"], "value": [1, 2, 3]})
    drawn = draw(panel("heatmap", defaults={"displayName": "${__field.labels.le}"}), [table])
    assert [one["name"] for one in drawn["series"]] == ["0.5", "9", "10.5"]


def test_a_kind_that_the_board_cannot_draw_is_said_so() -> None:
    assert draw(panel("nodeGraph"), [pa.table({"x": [1]})])["unknown"]


def test_seconds_become_times_by_the_type_that_clickhouse_names() -> None:
    table = with_times(
        pa.table({"a": pa.array([1767225600], pa.uint32()), "n": pa.array([5], pa.uint32())}),
        {"a": "DateTime('UTC')", "n": "UInt32"},
    )
    assert table.column("a").to_pylist()[0] == T[0]
    assert table.column("n").to_pylist() == [5]


@pytest.mark.parametrize(
    ("calc", "expected"),
    [
        ("last", None),
        ("lastNotNull", 3),
        ("firstNotNull", 1),
        ("first", 1),
        ("sum", 4),
        ("mean", 2),
        ("max", 3),
        ("min", 1),
        ("range", 2),
        ("count", 3),
    ],
)
def test_a_reducer_leaves_out_what_is_missing(calc: str, expected: float | None) -> None:
    assert reduce([1, 3, None], calc) == expected


@given(st.lists(st.none() | st.integers(-(2**60), 2**60), max_size=30))
def test_a_sum_of_counts_is_exact(numbers: list[int | None]) -> None:
    known = [number for number in numbers if number is not None]
    assert reduce(numbers, "sum") == (sum(known) if known else None)
