"""The macros are held against what the datasource's documentation says each becomes."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.board.macros import MacroError, Scope, Variable, conditions, expand, macros, quoted, text
from dashboards.board.timerange import TimeRange

START = datetime(2014, 11, 12, 11, 45, 26, 123000, UTC)
STOP = datetime(2015, 11, 12, 11, 45, 26, 456000, UTC)
SCOPE = Scope(
    TimeRange(START, STOP), 20, {"site": Variable(("a", "b'c")), "every": Variable(("x", "y"), everything=True)}
)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("$__timeFilter(t)", "t >= toDateTime(1415792726) AND t <= toDateTime(1447328726)"),
        (
            "$__timeFilter(cast(sth as timestamp) )",
            "cast(sth as timestamp) >= toDateTime(1415792726) AND cast(sth as timestamp) <= toDateTime(1447328726)",
        ),
        (
            "$__timeFilter_ms(t)",
            "t >= fromUnixTimestamp64Milli(1415792726123) AND t <= fromUnixTimestamp64Milli(1447328726456)",
        ),
        ("$__dateFilter(d)", "d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')"),
        (
            "$__dateTimeFilter(d, t)",
            "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')) AND "
            "(t >= toDateTime(1415792726) AND t <= toDateTime(1447328726))",
        ),
        (
            "$__dt(d, t)",
            "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')) AND "
            "(t >= toDateTime(1415792726) AND t <= toDateTime(1447328726))",
        ),
        ("(t >= $__fromTime and t <= $__toTime)", "(t >= toDateTime(1415792726) and t <= toDateTime(1447328726))"),
        ("$__fromTime_ms", "fromUnixTimestamp64Milli(1415792726123)"),
        ("$__toTime_ms", "fromUnixTimestamp64Milli(1447328726456)"),
        ("$__timeInterval(t)", "toStartOfInterval(toDateTime(t), INTERVAL 20 second)"),
        ("$__timeInterval_ms(t)", "toStartOfInterval(toDateTime64(t, 3), INTERVAL 20000 millisecond)"),
        ("sum(x) / $__interval_s", "sum(x) / 20"),
        ("$__unheardOf(t) + $__whatever", "$__unheardOf(t) + $__whatever"),
    ],
)
def test_each_macro_becomes_what_the_datasource_documents(sql: str, expected: str) -> None:
    assert expand(sql, SCOPE) == expected


def test_a_condition_is_dropped_only_where_its_variable_stands_for_all() -> None:
    sql = (
        "WHERE $__conditionalAll(site IN (${site:singlequote}), $site) "
        "AND $__conditionalAll(e IN ('(', $every), $every)"
    )
    assert expand(sql, SCOPE) == r"WHERE site IN ('a','b\'c') AND 1=1"


def test_a_condition_with_commas_and_functions_stays_whole() -> None:
    assert conditions("$__conditionalAll(f(a, b) IN (1, 2), $site)", SCOPE) == "f(a, b) IN (1, 2)"


@pytest.mark.parametrize("sql", ["site = $site", "site = ${site}", "site = [[site]]", "site = ${site:raw}"])
def test_a_variable_that_would_not_be_escaped_is_refused(sql: str) -> None:
    with pytest.raises(MacroError, match="singlequote"):
        expand(sql, SCOPE)


@pytest.mark.parametrize(
    "sql", ["$__timeFilter(t", "$__timeFilter()", "$__dateTimeFilter(d)", "$__conditionalAll(x, $no)"]
)
def test_a_broken_call_says_so(sql: str) -> None:
    with pytest.raises(MacroError):
        expand(sql, SCOPE)


@given(st.text())
def test_a_quoted_value_can_never_end_its_literal(value: str) -> None:
    inside = quoted(value)[1:-1]
    assert re.fullmatch(r"(?:[^'\\]|\\.)*", inside, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL) == value


@given(st.text(alphabet=st.characters(exclude_characters="$"), max_size=60))
def test_a_query_without_a_dollar_is_left_alone(sql: str) -> None:
    assert expand(sql, SCOPE) == sql


@given(st.integers(0, 4_000_000_000), st.integers(1, 10_000_000))
def test_the_range_is_in_whole_seconds_of_its_ends(start: int, length: int) -> None:
    begin = datetime.fromtimestamp(min(start, 4_200_000_000), UTC)
    span = TimeRange(begin, begin + timedelta(seconds=length))
    expected = f"toDateTime({int(begin.timestamp())}) toDateTime({int(begin.timestamp()) + length})"
    assert macros("$__fromTime $__toTime", Scope(span, 60)) == expected


def test_a_title_says_what_is_chosen() -> None:
    assert text("Power of $site and ${every}, $5", SCOPE) == "Power of a + b'c and All, $5"
