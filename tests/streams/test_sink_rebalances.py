"""A rebalance in the midst of anything: what stays goes on, what goes away is let go at once, and nothing is lost."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from streams.flush import Portion
from streams.ledger import Lost, Range
from streams.polled import Polled
from tests.streams.sink_world import World, play, until


def test_what_a_rebalance_gives_away_in_the_midst_of_a_take_is_not_claimed(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        told = threading.Event()
        world.before_claim = lambda: told.wait(60)
        world.sink.assign({0, 1})
        await until(lambda: world.asked == [[0, 1]])
        world.sink.revoke()
        world.sink.assign({0})
        told.set()
        await world.taken(0, 1)
        assert world.epochs == {0: 1}

    play(poll, script)


def test_what_stays_over_a_rebalance_goes_on_without_a_take_and_keeps_what_is_queued(
    poll: Callable[..., Polled],
) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0, 1})
        await world.taken(0, 1)
        await world.taken(1, 1)
        world.offer(0, 30)
        await until(lambda: world.sink.progress.positions[0] == 30)
        world.offer(0, 7)  # queued when the rebalance comes
        world.sink.revoke()
        world.sink.assign({0})
        await world.taken(0, 2)
        assert world.runs[0][-1].position == 37
        world.offer(0, 5)
        await until(lambda: world.sink.progress.positions == {0: 42})
        assert (world.epochs, world.sink.progress.takes) == ({0: 1, 1: 1}, 2)

    assert sum(done.events for done in play(poll, script).flushed) == 42


def test_an_audit_in_the_midst_of_a_rebalance_takes_nothing_from_what_stays(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0})
        await world.taken(0, 1)
        world.sink.revoke()
        world.sink.audit_soon()
        await until(lambda: world.sink.progress.audits == 1)
        world.sink.assign({0})
        await world.taken(0, 2)
        assert len(world.runs[0]) == 2, "nothing was started that was not assigned"
        assert (world.epochs, world.sink.progress.takes) == ({0: 1}, 1)

    play(poll, script)


@pytest.mark.parametrize("refused", ["before the rebalance", "in its midst", "after it"])
def test_a_flush_that_is_refused_for_what_a_rebalance_gives_away_waits_no_longer_than_for_the_rebalance(
    poll: Callable[..., Polled], refused: str
) -> None:
    async def script(world: World) -> None:
        world.sink._group_timeout_seconds = 600.0  # more than is waited for
        begun, told = threading.Event(), threading.Event()

        def lost(portions: Sequence[Portion]) -> list[Range]:
            del world.write
            begun.set()
            told.wait(60)
            raise Lost("1 has a higher claim")

        async def until_refused() -> None:
            told.set()
            writing = world.sink._writing
            await until(lambda: writing is None or writing.done())
            await asyncio.sleep(0.02)  # so that it is looked at

        world.write = lost  # type: ignore[method-assign]
        world.sink.assign({0, 1})
        await world.taken(0, 1)
        await world.taken(1, 1)
        world.offer(0, 60)
        await until(begun.is_set)
        if refused == "before the rebalance":
            await until_refused()
        world.sink.revoke()
        if refused == "in its midst":
            await until_refused()
        world.sink.assign({0})
        told.set()
        await world.taken(0, 2)
        world.runs[0][-1].position = 0
        world.offer(0, 60)
        await until(lambda: world.sink.progress.positions == {0: 60})

    play(poll, script)


def test_what_another_has_claimed_meanwhile_is_taken_anew(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0, 1})
        await world.taken(0, 1)
        await world.taken(1, 1)
        world.offer(0, 7)
        world.sink.revoke()
        world.epochs[0], world.bases[0] = 2, 20
        world.sink.assign({0, 1})
        await world.taken(0, 2)
        assert world.runs[0][-1].position == 20
        assert (world.epochs, world.sink.progress.takes) == ({0: 3, 1: 1}, 3)

    assert play(poll, script).flushed == []


def test_what_was_away_for_one_assignment_is_taken_anew(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0})
        await world.taken(0, 1)
        world.offer(0, 7)
        world.sink.assign({1})
        world.sink.assign({0, 1})
        await world.taken(0, 2)
        assert world.runs[0][-1].position == world.bases.get(0, 0)
        assert world.epochs[0] == 2

    play(poll, script)


def test_a_rebalance_in_the_midst_of_a_flush_loses_nothing_that_was_taken_from_the_queue(
    poll: Callable[..., Polled],
) -> None:
    async def script(world: World) -> None:
        prepared, go_on = threading.Event(), threading.Event()

        def prepare(portions: Sequence[Portion], settled: Callable[[], object]) -> Sequence[Portion]:
            prepared.set()
            go_on.wait(60)
            return portions

        world.sink.assign({0})
        await world.taken(0, 1)
        world.prepare = prepare
        world.offer(0, 60)
        await until(prepared.is_set)
        world.sink.revoke()
        world.sink.assign({0})
        go_on.set()
        await world.taken(0, 2)
        assert world.runs[0][-1].position == 0
        world.offer(0, 60)
        await until(lambda: world.sink.progress.positions == {0: 60})

    assert sum(done.events for done in play(poll, script).flushed) == 60


def test_a_poll_of_an_earlier_run_is_dropped(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0})
        await world.taken(0, 1)
        stale = world.runs[0][0]
        world.sink.revoke()
        assert not stale.open
        world.offer(0, 5, run=stale)
        world.sink.assign({0})
        await world.taken(0, 2)
        world.offer(0, 5, run=stale)
        world.offer(0, 3)
        await until(lambda: world.sink.progress.positions == {0: 3})

    assert play(poll, script).sink.progress.messages == 3


def test_a_revocation_does_not_wait_for_clickhouse(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        gate = threading.Event()
        loop = asyncio.get_running_loop()
        started = asyncio.Event()

        def hangs(portions: Sequence[Portion]) -> list[Range]:
            loop.call_soon_threadsafe(started.set)
            gate.wait(60)
            return []

        world.write = hangs  # type: ignore[method-assign]
        world.sink.assign({0})
        await world.taken(0, 1)
        world.offer(0, 5)
        await started.wait()
        world.sink.revoke()
        assert world.sink.claims == {}
        gate.set()

    play(poll, script)
