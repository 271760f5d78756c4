"""The events of the bench: what is sent, and what the tables should say of it."""

import numpy as np
import pytest

from pipelines.bench.load import LOADS, TOTALS, totals
from schemas.envelope import complete
from schemas.identity import with_identity

EVENTS = 60_000


@pytest.mark.parametrize("name", LOADS)
def test_events_are_possible_and_no_two_are_the_same(name: str) -> None:
    load = LOADS[name]
    seen: set[int] = set()
    for frame in load.frames(EVENTS):
        whole = complete(load.event_type, frame)
        sent = whole.with_columns(arrived=whole["time"].dt.cast_time_unit("ms"))
        refused = [reason for reason, rule in load.event_type.impossible if sent.select(rule.any()).item()]
        assert refused == []
        seen.update(with_identity(load.event_type, whole)["identity_lo"])
    assert len(seen) == EVENTS


def test_the_same_events_are_made_each_time() -> None:
    load = LOADS["json"]
    first, second = ([totals(load.event_type, [frame]) for frame in load.frames(EVENTS)] for _ in range(2))
    assert first == second
    assert sum(count for count, *_ in first) == EVENTS


def test_factors_change_what_they_say() -> None:
    tenants = next(LOADS["tenants"].frames(EVENTS))
    assert tenants["tenant"].n_unique() > 9_900
    assert tenants["model"].n_unique() <= 300
    for name, devices in (("devices-1k", 1_000), ("devices-100k", 50_000)):  # a chunk of them
        assert next(LOADS[name].frames(EVENTS)).select("node", "device").n_unique() == devices
    late = next(LOADS["late"].frames(EVENTS))["time"]
    hours_ago = (late.max() - late).dt.total_minutes().to_numpy() > 55
    assert np.mean(hours_ago) == pytest.approx(0.05, abs=0.01)


def test_there_is_something_to_hold_each_load_against() -> None:
    for load in LOADS.values():
        sums = TOTALS[load.event_type.name]
        assert {len(columns) for columns in sums.values()} == {len(totals(load.event_type, []))}
