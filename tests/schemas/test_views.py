"""The views for people, on a real engine: energy, interim PUE, completeness, balances."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.sums import SUMS, of_rollup
from schemas.tables import COARSER, HOURLY

DAY = "2026-01-01"
FAR, NEVER = "(toDateTime64('2262-01-01 00:00:00', 9, 'UTC'), 0.)", "(toDateTime64(0, 9, 'UTC'), 0.)"


def meter(site: str, name: str, role: str, minutes: dict[int, float], counter: dict[int, float] | None = None) -> str:
    """Mean watts by minute of the day, and the last counter reading of a minute."""
    rows = []
    for minute, watts in minutes.items():
        at = f"toDateTime('{DAY} 00:00:00', 'UTC') + {60 * minute}"
        reading = (counter or {}).get(minute)
        last = f"(toDateTime64({at}, 9, 'UTC') + 50, {reading})" if reading is not None else NEVER
        first = last if reading is not None else FAR
        rows.append(f"({at}, '{site}', '{name}', '{role}', 2, 2, {round(watts * 2000)}, {first}, {last})")
    columns = "minute, site, meter, role, samples, power_samples, milliwatts, joules_first, joules_last"
    return f"INSERT INTO power_1m ({columns}) VALUES {', '.join(rows)}"


def emitter(site: str, name: str, interval: int, maintenance: bool = False, since: str = "2020-01-01 00:00:00") -> str:
    return (
        "INSERT INTO emitters (topic, site, emitter, interval_seconds, since, until, maintenance, registered) VALUES "
        f"('power', '{site}', '{name}', {interval}, '{since}', '2106-02-07 00:00:00', {maintenance}, '2020-01-01')"
    )


def energy(site: str, start: str, stop: str) -> str:
    span = f"start = '{DAY} {start}', stop = '{DAY} {stop}'"
    return (
        "SELECT toHour(minute) * 60 + toMinute(minute) AS m, round(joules, 3), round(seconds), method "
        f"FROM energy({span}) WHERE site = '{site}' ORDER BY m, meter"
    )


def pue(site: str) -> str:
    span = f"start = '{DAY} 10:00:00', stop = '{DAY} 11:00:00'"
    return f"SELECT interim_pue, minutes, method FROM pue({span}) WHERE site = '{site}'"


def heard(site: str, start: str, stop: str) -> str:
    span = f"start = '{DAY} {start}', stop = '{DAY} {stop}'"
    return f"SELECT expected, heard FROM completeness({span}) WHERE site = '{site}' ORDER BY minute"


TEN = 600
SETUP = [
    # Power of 100 W; nothing heard at 10:02 and 10:03.
    meter("gap", "m", "it", {TEN: 100, TEN + 1: 100, TEN + 4: 100}),
    # A counter that is read at 10:00, 10:01 and 10:04 and starts anew at 10:05.
    meter(
        "counts",
        "m",
        "it",
        dict.fromkeys((TEN, TEN + 1, TEN + 4, TEN + 5), 1),
        {TEN: 600, TEN + 1: 1200, TEN + 4: 4200, TEN + 5: 90},
    ),
    # A counter under steady power, read irregularly (always 50 s into a minute).
    meter(
        "steady",
        "m",
        "it",
        dict.fromkeys((TEN, TEN + 15, TEN + 23, TEN + 36), 100),
        {m: 6000.0 * m for m in (TEN, TEN + 15, TEN + 23, TEN + 36)},
    ),
    # An hourly meter, read once at 09:30.
    emitter("hourly", "m", 3600),
    meter("hourly", "m", "it", {570: 60}),
    # Every five minutes until 10:10, each minute from then on.
    emitter("changed", "m", 300),
    emitter("changed", "m", 60, since=f"{DAY} 10:10:00"),
    meter("changed", "m", "it", {TEN: 10, TEN + 5: 10, TEN + 11: 10, TEN + 14: 10}),
    # 130 W come in, 100 W are used; the IT meter is silent in the second half of ten minutes.
    meter("ratio", "u", "utility", {TEN + i: 130 for i in range(10)}),
    meter("ratio", "i", "it", {TEN + i: 100 for i in range(5)}),
    meter("ratio", "n", "node", {TEN + i: 7 for i in range(10)}),
    meter("blind", "u", "utility", {TEN + i: 130 for i in range(10)}),
    # Three are expected, one only from 10:01; a fourth is in maintenance.
    emitter("crew", "a", 60),
    emitter("crew", "b", 60),
    emitter("crew", "late", 60, since=f"{DAY} 10:01:00"),
    emitter("crew", "spare", 60, maintenance=True),
    meter("crew", "a", "it", {TEN: 1, TEN + 1: 1, TEN + 2: 1}),
    meter("crew", "b", "it", {TEN: 1}),
    meter("crew", "stranger", "it", {TEN + 1: 1}),
    "INSERT INTO packages (time, source, id, package, tenant, entry, tokens, priority, effective, expiry, arrived, "
    "topic_partition, offset, place, identity) "
    "SELECT '2026-01-01', 's', toString(number), 'p', 't', ['granted', 'topped_up', 'voided'][number + 1], "
    "[1000, 500, 200][number + 1], 0, '2026-01-01', NULL, '2026-01-01', 0, number, 0, "
    "toFixedString(toString(number), 16) FROM numbers(3)",
    "INSERT INTO usage_1m (minute, tenant, package, model, samples, requests, input_tokens, output_tokens, "
    "cache_read_tokens) VALUES ('2026-01-01 10:00:00', 't', 'p', 'm', 1, 1, 300, 50, 250)",
    # Merged with rows of the same minute and with a difference that the audit appends.
    *(
        "INSERT INTO usage_1m (minute, tenant, package, model, samples, requests, input_tokens, output_tokens, upto) "
        f"VALUES ('2026-01-01 10:00:00', 't', 'merged', 'm', {sign}1, {sign}1, {sign}{tokens}, 1, {sign}1)"
        for sign, tokens in (("", 500), ("", 40), ("-", 40))
    ),
    "OPTIMIZE TABLE usage_1m FINAL",
    "INSERT INTO usage_1m (minute, tenant, package, model, samples, requests, input_tokens, output_tokens) "
    "VALUES ('2026-01-01 10:01:00', 't', 'merged', 'm', 1, 1, 7, 0)",
]
USED = "SELECT package, toInt32(sum(input_tokens) + sum(output_tokens)) FROM usage_1m GROUP BY package ORDER BY package"
QUESTIONS = {
    "changed": energy("changed", "10:00:00", "11:00:00"),
    "gap": energy("gap", "10:00:00", "11:00:00"),
    "counts": energy("counts", "10:00:00", "11:00:00"),
    "steady": energy("steady", "10:01:00", "10:30:00"),
    "hourly": energy("hourly", "10:00:00", "11:00:00"),
    "ratio": pue("ratio"),
    "blind": pue("blind"),
    "crew": heard("crew", "10:00:00", "10:03:00"),
    "crew between": heard("crew", "10:00:20", "10:02:50"),
    "hourly heard": heard("hourly", "09:29:00", "10:31:00"),
    "nobody": heard("nobody", "10:00:00", "10:03:00"),
    "balance": "SELECT toInt32(granted_tokens), toInt32(withdrawn_tokens), toInt32(used_tokens), toInt32(left_tokens) "
    "FROM package_balances WHERE package = 'p'",
    "used": f"{USED} SETTINGS force_optimize_projection_name = 'by_package'",
    "used by rows": f"{USED} SETTINGS optimize_use_projections = 0",
    "rows of a balance": "SELECT trim(explain) FROM (EXPLAIN SELECT used_tokens FROM package_balances) "
    "WHERE explain LIKE '%ReadFromMergeTree%'",
    "types of sums": " UNION ALL ".join(
        f"SELECT '{table}', arrayDistinct([{', '.join(f'toTypeName({name}_sum)' for name in SUMS[table])}]) "
        f"FROM (SELECT {of_rollup(table)} FROM {table})"
        for table in SUMS
    ),
    "columns of rollups": "SELECT table, groupArray(name) FROM (SELECT table, name FROM system.columns "
    "WHERE database = 'wattstream' AND match(table, '_1[mhd]$') ORDER BY table, position) "
    "GROUP BY table",
    "comments": "SELECT name, comment FROM system.tables WHERE database = 'wattstream' AND engine = 'View'",
    "columns": "SELECT table, name FROM system.columns WHERE database = 'wattstream' AND comment = '' "
    "AND table IN (SELECT name FROM system.tables WHERE database = 'wattstream' AND engine = 'View')",
}


@pytest.fixture(scope="module")
def answers(asked: Callable[[list[str]], list[Any]]) -> dict[str, list[Any]]:
    return dict(zip(QUESTIONS, asked([*SETUP, *QUESTIONS.values()])[len(SETUP) :], strict=True))


def test_power_becomes_energy_for_the_minutes_heard_and_never_across_a_gap(answers: dict[str, Any]) -> None:
    assert answers["gap"] == [[600, 6000, 60, "power"], [601, 6000, 60, "power"], [604, 6000, 60, "power"]]


def test_a_counter_says_the_energy_also_over_minutes_without_a_reading_and_after_a_reset(
    answers: dict[str, Any],
) -> None:
    # Read 50 s into each minute: 600 J in 60 s, then 3000 J in 180 s, then 90 J since the reset.
    assert answers["counts"] == [
        [600, 100, 10, "counter"],
        [601, pytest.approx(500 + 3000 / 18, abs=1e-3), 60, "counter"],
        [602, 1000, 60, "counter"],
        [603, 1000, 60, "counter"],
        [604, pytest.approx(2500 / 3 + 15, abs=1e-3), 60, "counter"],
        [605, 75, 50, "counter"],
    ]


def test_steady_power_is_the_same_in_every_minute_however_irregularly_its_counter_is_read(
    answers: dict[str, Any],
) -> None:
    """Read after 15, 8 and 13 minutes, at odd seconds: 100 W throughout, also at the edges of the range asked for."""
    assert [row[0] for row in answers["steady"]] == [*range(TEN + 1, TEN + 30)]
    assert [row[1] / row[2] for row in answers["steady"]] == pytest.approx([100] * 29)
    assert all(row[2] == 60 for row in answers["steady"])


def test_an_hourly_meter_stands_for_its_hour_and_no_longer(answers: dict[str, Any]) -> None:
    assert answers["hourly"] == [[minute, 3600, 60, "power"] for minute in range(600, 630)]


def test_a_sample_stands_for_the_interval_that_was_registered_then(answers: dict[str, Any]) -> None:
    assert [row[0] - TEN for row in answers["changed"]] == [*range(10), 11, 14]


def test_interim_pue_counts_only_the_minutes_in_which_both_are_known(answers: dict[str, Any]) -> None:
    assert answers["ratio"] == [[1.3, 5, "power"]]


def test_without_it_energy_there_is_no_pue(answers: dict[str, Any]) -> None:
    assert answers["blind"] == [[None, 0, "power"]]


def test_completeness_counts_who_was_expected_then(answers: dict[str, Any]) -> None:
    crew = [[int(expected), int(heard_)] for expected, heard_ in answers["crew"]]
    assert crew == [[2, 2], [3, 1], [3, 1]]


def test_a_range_within_minutes_counts_from_its_first_minute_to_the_last_whole_one(answers: dict[str, Any]) -> None:
    assert [[int(expected), int(heard_)] for expected, heard_ in answers["crew between"]] == [[2, 2], [3, 1]]


def test_an_hourly_meter_is_heard_for_the_hour(answers: dict[str, Any]) -> None:
    assert [int(row[1]) for row in answers["hourly heard"]] == [0, *[1] * 60, 0]


def test_where_nobody_is_expected_there_is_no_completeness(answers: dict[str, Any]) -> None:
    assert answers["nobody"] == []


def test_a_package_has_left_what_was_granted_less_voided_and_used_at_rate_one(answers: dict[str, Any]) -> None:
    assert answers["balance"] == [[1500, 200, 350, 950]]


def test_balances_read_the_sums_that_each_part_of_the_usage_holds(answers: dict[str, Any]) -> None:
    assert answers["used"] == answers["used by rows"] == [["merged", 510], ["p", 350]]
    assert any("by_package" in step for (step,) in answers["rows of a balance"])


def test_sums_are_plain_integers_whatever_the_table_keeps(answers: dict[str, Any]) -> None:
    assert sorted(answers["types of sums"]) == sorted([table, ["Int64"]] for table in SUMS)


def test_hours_and_minutes_have_the_same_columns_in_the_same_order_as_the_views_in_steps_take_them(
    answers: dict[str, Any],
) -> None:
    columns = dict(answers["columns of rollups"])
    for minutes, hours in HOURLY.items():
        of_minutes = [name for name in columns[minutes] if name not in ("topic_partition", "upto")]
        assert of_minutes == ["minute", *columns[hours][1:]]
    for coarser, (minutes, _) in COARSER.items():
        assert [name for name in columns[minutes] if name in columns[coarser]] == columns[coarser][1:]


def test_every_view_says_what_it_is(answers: dict[str, Any]) -> None:
    comments = dict(answers["comments"])
    now = {"energy", "pue", "tokens_per_kwh", "package_balances", "site_capacity", "site_headroom", "completeness"}
    now |= {"site_energy"}
    stepped = {"energy", "site_energy", "site_headroom", "completeness", *(name.removesuffix("_1m") for name in HOURLY)}
    stepped |= {"site_tokens", "region_tokens", "customer_usage", "package_usage"}
    assert set(comments) == now | {f"{name}_in_steps" for name in stepped} | {f"{rollup}_known" for rollup in HOURLY}
    assert all(len(comment) > 60 for comment in comments.values())
    assert answers["columns"] == []
