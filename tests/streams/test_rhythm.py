"""When flushes and audits have their turn, by a clock that is told."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streams.rhythm import FLUSH_SHARE, LONGEST_FLUSHES, ROWS_OF_NOTHING, Rhythm


def flushes(takes: list[float], step: float, rows: int = 0) -> list[float]:
    """When flushes of so many rows begin that take so long, where something waits at each look, ``step`` s apart."""
    rhythm, now, begun = Rhythm(1.0), 100.0, list[float]()
    ends = now
    while len(begun) < len(takes):
        rhythm.look(now, waiting=True)
        if rhythm.late(now) and now >= ends:
            rhythm.flush_begins(now)
            took = takes[len(begun)]
            rhythm.flush_ends(took, rows)
            begun.append(now)
            ends = now + took
        now += step
    return begun


def test_flushes_that_take_little_are_flush_seconds_apart() -> None:
    begun = flushes([0.1] * 10, 0.01)
    assert all(0.99 < later - sooner < 1.03 for sooner, later in pairwise(begun))


def test_flushes_that_take_long_are_fewer() -> None:
    begun = flushes([0.5] * 10, 0.01)[1:]  # the first follows one that took nothing
    assert all(1.49 < later - sooner < 1.53 for sooner, later in pairwise(begun))


def test_flushes_that_take_very_long_are_not_far_apart() -> None:
    begun = flushes([1.5] * 10, 0.01)[1:]
    assert all(1.99 < later - sooner < 2.03 for sooner, later in pairwise(begun))


def test_flushes_that_take_long_for_many_rows_are_flush_seconds_apart() -> None:
    begun = flushes([0.8] * 10, 0.01, rows=5 * ROWS_OF_NOTHING)  # of which 0.8 / 6 s would be spent on nothing, too
    assert all(0.99 < later - sooner < 1.03 for sooner, later in pairwise(begun))


def test_the_pause_holds_also_where_nothing_waited_meanwhile() -> None:
    rhythm = Rhythm(1.0)
    rhythm.flush_ends(0.6, 0)
    rhythm.flush_begins(10.0)
    rhythm.look(10.1, waiting=False)
    assert rhythm.due is None
    rhythm.look(10.2, waiting=True)
    assert rhythm.due == 10.0 + FLUSH_SHARE * 0.6
    rhythm.look(10.3, waiting=False)
    rhythm.look(12.0, waiting=True)
    assert rhythm.due == 13.0


@given(
    st.lists(st.floats(0, 5), min_size=3, max_size=12),
    st.floats(0.005, 0.2),
)
def test_nobody_waits_longer_than_the_pause_or_a_flush(takes: list[float], step: float) -> None:
    begun = flushes(takes, step)
    for number, (sooner, later) in enumerate(pairwise(begun)):
        assert 1.0 - 1e-6 <= later - sooner <= max(LONGEST_FLUSHES, takes[number]) + 2 * step


def test_an_audit_waits_for_a_flush_where_one_was_just_before_and_something_waits() -> None:
    rhythm = Rhythm(1.0)
    assert not rhythm.audits_turn(waiting=True), "nobody asked"
    rhythm.ask_audit()
    assert rhythm.audits_turn(waiting=True)
    rhythm.audit_begins()
    assert not rhythm.audits_turn(waiting=False), "what was asked for is done"
    rhythm.ask_audit()
    assert not rhythm.audits_turn(waiting=True)
    assert rhythm.audits_turn(waiting=False)
    rhythm.flush_begins(1.0)
    assert rhythm.audits_turn(waiting=True)
