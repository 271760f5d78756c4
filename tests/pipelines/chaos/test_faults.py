"""The plan of faults: every kind as often as every other, the same for the same seed, and long enough to matter."""

import random
from pathlib import Path

import streams
from pipelines.chaos.faults import STEPS, faults, planned
from schemas.settings import Settings


def names(rounds: int, seed: int) -> list[str]:
    kinds = faults(Settings(home=Path("unused")), own_disk=True)
    return [fault.name for fault in planned(kinds, rounds, random.Random(seed))]


def test_every_kind_comes_as_often_as_every_other() -> None:
    kinds = {fault.name for fault in faults(Settings(home=Path("unused")), own_disk=True)}
    order = names(3 * len(kinds), 1)
    assert {name: order.count(name) for name in kinds} == dict.fromkeys(kinds, 3)


def test_the_order_is_the_seeds() -> None:
    assert names(20, 1) == names(20, 1)
    assert names(20, 1) != names(20, 2)


def test_sleepers_sleep_past_the_time_outs_that_are_set() -> None:
    settings = Settings(home=Path("unused"), group_timeout_seconds=4, clickhouse_timeout_seconds=8)
    asleep = sorted(fault.sleeps_seconds for fault in faults(settings, own_disk=True) if fault.sleeps_seconds)
    assert asleep[0] > settings.group_timeout_seconds
    assert asleep[-1] > 3 * settings.group_timeout_seconds
    assert any(f.part == "clickhouse" and f.sleeps_seconds > 8 for f in faults(settings, own_disk=True))


def test_each_step_has_its_fail_point_in_the_workers_code() -> None:
    code = "".join(file.read_text() for file in Path(streams.__file__ or "").parent.glob("*.py"))
    assert [step for step in STEPS if f'failpoint("{step}")' not in code] == []


def test_a_disk_is_filled_only_where_it_is_the_stacks_own() -> None:
    kinds = faults(Settings(home=Path("unused")), own_disk=False)
    assert not any(fault.full_seconds for fault in kinds)
