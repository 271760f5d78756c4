"""Energy and completeness of random networks, beside what their definitions make of the same rows in plain Python."""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

BASE = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
HOUR, MINUTE = 3600, 60
INTERVALS = (1, 10, 60, 60, 90, 900, 3600)
GAPS = (7, 30, 60, 60, 61, 240, 900, 4000)
SITES = 60
SPANS = [(0, 2 * HOUR), (1234, 1234 + 2 * HOUR), (3 * HOUR + 17, 3 * HOUR + 1000), (5 * MINUTE, 5 * MINUTE)]
"""Ranges asked for, in seconds after BASE."""

Minutes = dict[int, tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """A row of power_1m: seconds since 1970, and mW."""

    minute: int
    powers: int
    milliwatts: int
    reading: tuple[float, float] | None


@dataclass(frozen=True)
class Registration:
    since: int
    until: int
    interval: int
    maintenance: bool
    registered: int


@dataclass
class Meter:
    site: str
    name: str
    rows: list[Row] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)


def network(dice: random.Random, site: str) -> list[Meter]:
    """Some meters of a site: counters with resets and gaps, powers, both read irregularly and told in pieces."""
    meters = [Meter(site, f"m{number}") for number in range(dice.randint(1, 4))]
    for one in meters:
        for _ in range(dice.randint(0, 3)):
            since = BASE + dice.choice([dice.randint(-9000, 20_000), MINUTE * dice.randint(-100, 300)])
            until = since + dice.choice([0, 30, HOUR, 7000, 10**7])
            for again in range(dice.randint(1, 2)):
                registered = BASE + len(one.registrations) + again
                interval = dice.choice(INTERVALS)
                one.registrations.append(Registration(since, until, interval, dice.random() < 0.15, registered))
        counter, at, joules = dice.random() < 0.5, BASE - dice.randint(0, 9000) + 0.0, dice.random() * 1e9
        while at < BASE + 6 * HOUR:
            at = round(at + dice.choice(GAPS) * dice.random() + 0.001, 3)
            joules = dice.random() * 100 if dice.random() < 0.03 else joules + dice.random() * 1e5
            powers = int(dice.random() < 0.9)
            reading = (at, joules) if counter and dice.random() < 0.9 else None
            minute = int(at // MINUTE * MINUTE)
            one.rows.append(Row(minute, powers, powers * dice.randint(1, 10**7), reading))
    return meters


def energy(one: Meter, start: int, stop: int) -> Minutes:
    """(J, s) by minute: a counter's differences over the time between readings, a power held for its interval."""
    found: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(begin: float, end: float, watts: float) -> None:
        minute = int(begin // MINUTE * MINUTE)
        while minute < end:
            seconds = min(end, minute + MINUTE) - max(begin, minute)
            if seconds > 0 and start <= minute < stop:
                found[minute][0] += watts * seconds
                found[minute][1] += seconds
            minute += MINUTE

    by_minute: defaultdict[int, list[Row]] = defaultdict(list)
    for row in one.rows:
        if start - HOUR <= row.minute < stop + HOUR:
            by_minute[row.minute].append(row)
    last = [
        max(r.reading for r in rows if r.reading)
        for _, rows in sorted(by_minute.items())
        if any(r.reading for r in rows)
    ]
    for before, after in pairwise(last):
        rise = after[1] - before[1] if after[1] >= before[1] else after[1]
        add(before[0], after[0], rise / (after[0] - before[0]))
    if last:
        return {minute: (joules, seconds) for minute, (joules, seconds) in found.items()}
    minutes = sorted(by_minute)
    for minute, following in zip(minutes, [*minutes[1:], stop + 10 * HOUR], strict=True):
        powers = sum(row.powers for row in by_minute[minute])
        if powers:
            known = [r for r in one.registrations if r.since // MINUTE * MINUTE <= minute]
            newest = max(known, key=lambda r: (r.since // MINUTE, r.registered), default=None)
            whole = -(-max(newest.interval if newest else 0, MINUTE) // MINUTE) * MINUTE
            watts = sum(row.milliwatts for row in by_minute[minute]) / 1e3 / powers
            add(minute, min(following, minute + whole), watts)
    return {minute: (joules, seconds) for minute, (joules, seconds) in found.items()}


def completeness(meters: list[Meter], start: int, stop: int) -> dict[int, tuple[int, int]]:
    """(expected, heard) by minute in which somebody is expected."""
    expected: defaultdict[int, int] = defaultdict(int)
    heard: defaultdict[int, set[str]] = defaultdict(set)
    grid = range(start // MINUTE * MINUTE, stop // MINUTE * MINUTE, MINUTE)
    for one in meters:
        newest = {r.since: r for r in sorted(one.registrations, key=lambda r: r.registered)}
        for known in newest.values():
            if known.maintenance or known.since >= stop or known.until <= start:
                continue
            due = [minute for minute in grid if known.since // MINUTE * MINUTE <= minute < known.until]
            told = {m for row in one.rows for m in range(row.minute, row.minute + max(known.interval, MINUTE), MINUTE)}
            for minute in due:
                expected[minute] += 1
                if minute in told:
                    heard[minute].add(one.name)
    return {minute: (count, len(heard[minute])) for minute, count in expected.items()}


@pytest.fixture(scope="module")
def networks() -> list[list[Meter]]:
    dice = random.Random(7)
    return [network(dice, f"s{number}") for number in range(SITES)]


@pytest.fixture(scope="module")
def told(networks: list[list[Meter]], asked: Callable[[list[str]], list[Any]]) -> dict[str, list[Any]]:
    rows, registrations = [], []
    for one in (meter for meters in networks for meter in meters):
        for row in one.rows:
            at, joules = row.reading or (0, 0.0)
            last = f"('{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}', {joules!r})"
            rows.append(f"({row.minute}, '{one.site}', '{one.name}', 1, {row.powers}, {row.milliwatts}, {last})")
        for known in one.registrations:
            values = (known.interval, known.since, known.until, int(known.maintenance), known.registered)
            registrations.append(f"('power', '{one.site}', '{one.name}', {', '.join(map(str, values))})")
    half = len(rows) // 2  # two parts, so that rows of one minute are met apart
    columns = "minute, site, meter, samples, power_samples, milliwatts, joules_last"
    known = "topic, site, emitter, interval_seconds, since, until, maintenance, registered"
    setup = [
        "SYSTEM STOP MERGES power_1m",
        f"INSERT INTO power_1m ({columns}) SETTINGS optimize_on_insert = 0 VALUES {', '.join(rows[:half])}",
        f"INSERT INTO power_1m ({columns}) VALUES {', '.join(rows[half:])}",
        f"INSERT INTO emitters ({known}) VALUES {', '.join(registrations)}",
    ]
    questions: dict[str, str] = {}
    for start, stop in SPANS:
        span = f"start = toDateTime({BASE + start}, 'UTC'), stop = toDateTime({BASE + stop}, 'UTC')"
        questions[f"energy {start}"] = (
            f"SELECT site, meter, toUnixTimestamp(minute), joules, seconds, method FROM energy({span})"
        )
        questions[f"completeness {start}"] = (
            f"SELECT site, toUnixTimestamp(minute), toUInt32(expected), toUInt32(heard) FROM completeness({span})"
        )
    return dict(zip(questions, asked([*setup, *questions.values()])[len(setup) :], strict=True))


@pytest.mark.parametrize(("start", "stop"), SPANS)
def test_energy_is_what_its_definition_says(
    networks: list[list[Meter]], told: dict[str, list[Any]], start: int, stop: int
) -> None:
    found = {
        (site, meter, minute): (joules, seconds) for site, meter, minute, joules, seconds, _ in told[f"energy {start}"]
    }
    assert len(found) == len(told[f"energy {start}"]), "a minute once"
    expected = {
        (one.site, one.name, minute): values
        for meters in networks
        for one in meters
        for minute, values in energy(one, BASE + start, BASE + stop).items()
    }
    assert found.keys() == expected.keys()
    assert bool(found) == (stop > start)
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-6, abs=1e-5), key


@pytest.mark.parametrize(("start", "stop"), SPANS)
def test_completeness_is_what_its_definition_says(
    networks: list[list[Meter]], told: dict[str, list[Any]], start: int, stop: int
) -> None:
    found = {(site, minute): (expected, heard) for site, minute, expected, heard in told[f"completeness {start}"]}
    expected = {
        (meters[0].site, minute): values
        for meters in networks
        for minute, values in completeness(meters, BASE + start, BASE + stop).items()
    }
    assert found == expected
    assert bool(found) == (stop > start)
