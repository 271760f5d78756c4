"""The dedupe decides as a plain set would, whatever the order, the splits, the budget and what is in memory."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dedupe import Minute, Seen

# Few values, so that they repeat; some share a half.
identities = st.tuples(st.sampled_from([0, 1, 2, 2**64 - 1]), st.sampled_from([0, 1, 2**63]))
events = st.tuples(st.integers(0, 2), st.integers(0, 3), identities)
flushes = st.lists(st.lists(events, max_size=12), max_size=6)


class Store:
    """Stands for the raw table: what was accepted, by partition and minute, once it is written."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []
        self.writing: list[tuple[int, int, int, int]] = []
        self.loads = 0

    def settle(self) -> None:
        self.rows += self.writing
        self.writing = []

    def load(self, minutes: list[Minute]) -> pl.DataFrame:
        self.loads += 1
        assert len(set(minutes)) == len(minutes)
        return pl.DataFrame(
            [row for row in self.rows if row[:2] in set(minutes)],
            schema={
                "topic_partition": pl.UInt16,
                "minute": pl.Int64,
                "identity_hi": pl.UInt64,
                "identity_lo": pl.UInt64,
            },
            orient="row",
        )


def frame(flush: list[tuple[int, int, tuple[int, int]]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "topic_partition": pl.Series([p for p, _, _ in flush], dtype=pl.UInt16),
            "time": pl.Series([m * 60 * 10**9 + 7 for _, m, _ in flush], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
            "identity_hi": pl.Series([i[0] for _, _, i in flush], dtype=pl.UInt64),
            "identity_lo": pl.Series([i[1] for _, _, i in flush], dtype=pl.UInt64),
        }
    )


def run(seen: Seen, store: Store, flush: list[tuple[int, int, tuple[int, int]]]) -> list[bool]:
    """One flush is written while the next is decided, and no longer: as late as it may be."""
    found = seen.first(frame(flush), store.load, store.settle).to_list()
    store.settle()
    store.writing = [(p, m, *i) for (p, m, i), first in zip(flush, found, strict=True) if first]
    return found


@settings(max_examples=150, deadline=None)
@given(flushes, st.sampled_from([0, 400, 1000, 1 << 20]), st.data())
def test_it_decides_as_a_set_does(parts: list[list], budget: int, data: st.DataObject) -> None:
    seen, store, known = Seen(budget), Store(), set()
    for flush in parts:
        if data.draw(st.booleans()):
            seen.forget(data.draw(st.integers(0, 2)))
        expected = [event not in known and not known.add(event) for event in flush]
        assert run(seen, store, flush) == expected
        assert seen.bytes <= budget


@settings(max_examples=100, deadline=None)
@given(st.lists(events, max_size=20), st.data())
def test_it_decides_the_same_however_the_events_are_split(flush: list, data: st.DataObject) -> None:
    """A retake flushes other stretches than the flush that died, also with other partitions beside it."""
    whole = run(Seen(1 << 20), Store(), flush)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(flush)), max_size=4)))
    seen, store = Seen(1 << 20), Store()
    parts = [flush[a:b] for a, b in zip([0, *cuts], [*cuts, len(flush)], strict=True)]
    assert [first for part in parts for first in run(seen, store, part)] == whole
    for partition in range(3):
        mine = [event for event in flush if event[0] == partition]
        assert run(Seen(1 << 20), Store(), mine) == [f for e, f in zip(flush, whole, strict=True) if e[0] == partition]


def test_a_minute_is_loaded_once_also_when_it_is_empty_and_again_after_it_was_dropped() -> None:
    seen, store = Seen(1 << 20), Store()
    run(seen, store, [(0, 1, (1, 1))])
    run(seen, store, [(0, 1, (2, 2))])
    assert store.loads == 1
    seen.forget(1)
    run(seen, store, [(0, 1, (3, 3))])
    assert store.loads == 1
    seen.forget(0)
    assert seen.bytes == 0
    assert run(seen, store, [(0, 1, (3, 3)), (0, 1, (4, 4))]) == [False, True]
    assert store.loads == 2


def test_the_least_recently_used_minutes_go_first() -> None:
    seen, store = Seen(1000), Store()
    for minute in (1, 2, 3, 1, 4):
        run(seen, store, [(0, minute, (minute, store.loads))])
    loads = store.loads
    run(seen, store, [(0, 1, (9, 9)), (0, 3, (9, 9))])
    assert store.loads == loads
    run(seen, store, [(0, 2, (9, 9))])
    assert store.loads == loads + 1


def test_many_identities_that_share_their_high_half_are_told_apart() -> None:
    seen, store = Seen(1 << 20), Store()
    first = [(0, 0, (7, i)) for i in range(0, 200, 2)]
    assert all(run(seen, store, first))
    assert run(seen, store, [(0, 0, (7, i)) for i in range(200)]) == [i % 2 == 1 for i in range(200)]


def test_a_load_that_fails_leaves_nothing_that_would_be_taken_for_known() -> None:
    seen, store = Seen(1 << 20), Store()
    store.rows = [(0, 5, 1, 1)]

    def broken(_: list[Minute]) -> pl.DataFrame:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        seen.first(frame([(0, 5, (1, 1))]), broken, lambda: None)
    assert run(seen, store, [(0, 5, (1, 1))]) == [False]
