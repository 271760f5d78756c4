"""Flushes of a topic: each is prepared behind the one before and written after it, however slow that is, or fails."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest

from streams import owned as owned_module
from streams import sink as sink_module
from streams.audit import Turn
from streams.ledger import Claim
from streams.polled import Polled
from tests.streams.sink_world import World, play, until


def test_audits_that_take_as_long_as_the_time_between_them_leave_flushes_their_turn(
    poll: Callable[..., Polled],
) -> None:
    async def script(world: World) -> None:
        def audit(claims: Mapping[int, Claim], ends: Mapping[int, int]) -> Turn:
            loop.call_soon_threadsafe(world.sink.audit_soon)  # the next is due before this one ends
            return Turn([], whole=True)

        loop = asyncio.get_running_loop()
        world.sink._audit_blocking = audit
        world.sink.assign({0})
        await world.taken(0, 1)
        world.sink.audit_soon()
        await until(lambda: world.sink.progress.audits > 3)
        world.offer(0, 5)
        await until(lambda: world.sink.progress.positions == {0: 5})
        world.offer(0, 7)
        await until(lambda: world.sink.progress.positions == {0: 12})
        audits = world.sink.progress.audits
        await until(lambda: world.sink.progress.audits > audits)

    play(poll, script)


def test_a_round_of_audits_that_takes_several_turns_leaves_a_flush_between_each_two(
    poll: Callable[..., Polled],
) -> None:
    async def script(world: World) -> None:
        flushes: list[int] = []

        def audit(claims: Mapping[int, Claim], ends: Mapping[int, int]) -> Turn:
            flushes.append(len(world.flushed))
            loop.call_soon_threadsafe(world.offer, 0, 5)  # something waits before this turn ends
            return Turn([], whole=len(flushes) == 4)

        loop = asyncio.get_running_loop()
        world.sink._audit_blocking = audit
        world.sink.assign({0})
        await world.taken(0, 1)
        world.sink.audit_soon()
        await until(lambda: world.sink.progress.audits == 1)
        assert len(flushes) == 4
        assert all(later > earlier for earlier, later in pairwise(flushes))

    play(poll, script)


def test_a_slow_clickhouse_holds_back_the_log_and_lets_it_go_again(
    poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "QUEUE_BYTES", 40_000)

    async def script(world: World) -> None:
        world.server.clear()
        world.sink.assign({0})
        await world.taken(0, 1)
        held = world.runs[0][0]
        offered = 0
        while held.open:
            world.offer(0, 20)
            offered += 20
            await asyncio.sleep(0.001)
            assert offered < 10_000, "nothing holds it back"
        world.server.set()
        await until(lambda: held.open and world.bases == {0: offered})

    play(poll, script)


def test_the_next_flush_is_prepared_while_one_is_written_and_written_after_it(
    poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_module, "DECODE_MESSAGES", 50)  # or they are joined

    async def script(world: World) -> None:
        world.server.clear()
        world.sink.assign({0})
        await world.taken(0, 1)
        for _ in range(3):
            world.offer(0, 50)
            await asyncio.sleep(0)
        await until(lambda: world.prepared == [0, 50])
        assert world.flushed == []
        world.server.set()
        await until(lambda: world.bases == {0: 150})
        assert world.prepared == [0, 50, 100]

    play(poll, script)


def test_what_is_prepared_behind_a_flush_that_fails_is_not_written(
    poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_module, "DECODE_MESSAGES", 50)  # or they are joined

    async def script(world: World) -> None:
        world.server.clear()
        world.flush_faults = [ConnectionError("away")]
        world.sink.assign({0})
        await world.taken(0, 1)
        world.offer(0, 50)
        world.offer(0, 50)
        await until(lambda: world.prepared == [0, 50])
        world.server.set()
        await world.taken(0, 2)
        assert world.flushed == []
        assert world.runs[0][-1].position == 0
        with pytest.raises(ConnectionError):  # what waits for identities learns of it, too
            world.settled()

    play(poll, script)
