"""The plan of faults: every kind as often as every other, the same for the same seed, and long enough to matter."""

import random
from pathlib import Path

import streams
from pipelines.chaos import STEPS, Report, Round, faults, planned
from schemas.settings import Settings


def names(rounds: int, seed: int) -> list[str]:
    kinds = faults(Settings(home=Path("unused")))
    return [fault.name for fault in planned(kinds, rounds, random.Random(seed))]


def test_every_kind_comes_as_often_as_every_other() -> None:
    kinds = {fault.name for fault in faults(Settings(home=Path("unused")))}
    order = names(3 * len(kinds), 1)
    assert {name: order.count(name) for name in kinds} == dict.fromkeys(kinds, 3)


def test_the_order_is_the_seeds() -> None:
    assert names(20, 1) == names(20, 1)
    assert names(20, 1) != names(20, 2)


def test_sleepers_sleep_past_the_time_outs_that_are_set() -> None:
    settings = Settings(home=Path("unused"), group_timeout_seconds=4, clickhouse_timeout_seconds=8)
    asleep = sorted(fault.sleeps_seconds for fault in faults(settings) if fault.sleeps_seconds)
    assert asleep[0] > settings.group_timeout_seconds
    assert asleep[-1] > 3 * settings.group_timeout_seconds
    assert any(f.part == "clickhouse" and f.sleeps_seconds > 8 for f in faults(settings))


def test_each_step_has_its_fail_point_in_the_workers_code() -> None:
    code = "".join(file.read_text() for file in Path(streams.__file__ or "").parent.glob("*.py"))
    assert [step for step in STEPS if f'failpoint("{step}")' not in code] == []


def test_a_difference_alone_is_no_success() -> None:
    assert Report(1, events=10, rounds=[Round("worker killed", "worker", 1.0, 2.0)]).holds
    assert not Report(1, events=10, differences=["the ledger's ranges overlap"]).holds
    assert not Report(1, events=10, twice=1).holds
