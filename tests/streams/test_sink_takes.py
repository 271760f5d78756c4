"""The loop of a topic takes what is assigned, and any trouble only means: take again, and let the others go on."""

import asyncio
from collections.abc import Callable

import polars as pl
import pytest

from streams.ledger import Halt, Lost
from streams.polled import Polled
from tests.streams.sink_world import World, play, until


def test_what_is_assigned_is_taken_and_what_comes_is_flushed(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0, 1})
        await world.taken(0, 1)
        await world.taken(1, 1)
        for _ in range(10):
            world.offer(0, 30)
            world.offer(1, 7)
        await until(lambda: world.sink.progress.positions == {0: 300, 1: 70})

    progress = play(poll, script).sink.progress
    assert (progress.messages, progress.rows, progress.takes, progress.troubles) == (370, 370, 2, 0)


def test_what_comes_before_a_start_has_returned_is_flushed_and_not_stale(poll: Callable[..., Polled]) -> None:
    """The consumer's thread delivers at once while the loop is busy: what was sent last would wait for ever."""

    async def script(world: World) -> None:
        world.started = lambda partition: world.offer(partition, 5)
        world.sink.assign({0})
        await until(lambda: world.sink.progress.positions == {0: 5})

    assert play(poll, script).sink.progress.takes == 1


def test_a_start_that_fails_is_tried_again(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.start_faults = [ConnectionError("not assigned any more")]
        world.sink.assign({0})
        await world.taken(0, 2)
        world.offer(0, 5)
        await until(lambda: world.sink.progress.positions == {0: 5})

    assert play(poll, script).sink.progress.troubles == 1


def test_partitions_are_taken_together(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0, 1, 2})
        await world.taken(2, 1)

    assert play(poll, script).asked == [[0, 1, 2]]


def test_one_that_the_server_can_not_look_up_is_tried_again_and_the_others_go_on(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.unreadable = {0}
        world.sink.assign({0, 1, 2})
        await world.taken(2, 1)
        world.offer(1, 5)
        await until(lambda: world.sink.progress.positions == {1: 5, 2: 0})
        assert world.sink.progress.takes == 2
        world.unreadable.clear()
        await world.taken(0, 1)

    play(poll, script)


def test_a_start_that_fails_loses_nothing_of_what_the_take_found_of_others(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.start_faults = [ConnectionError("not assigned any more")]
        world.take_faults = [Halt("the log expired")]  # of partition 0; 1 can't be started
        world.sink.assign({0, 1})
        await world.taken(1, 2)
        assert world.sink.progress.halted == {0: "the log expired"}
        assert world.asked == [[0, 1], [1]]

    play(poll, script)


def test_a_break_in_the_chain_takes_the_partition_again(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.sink.assign({0})
        await world.taken(0, 1)
        world.offer(0, 3)
        await until(lambda: world.bases == {0: 3})
        world.offer(0, 3, expected=7)
        await world.taken(0, 2)
        assert world.runs[0][-1].position == 3
        world.offer(0, 2)
        await until(lambda: world.bases == {0: 5})

    play(poll, script)


@pytest.mark.parametrize(
    "fault", [ConnectionError("away"), KeyError("a bug"), pl.exceptions.PanicException("native"), Lost("fenced")]
)
@pytest.mark.parametrize("where", ["take_faults", "flush_faults"])
def test_any_trouble_means_take_again(poll: Callable[..., Polled], where: str, fault: BaseException) -> None:
    async def script(world: World) -> None:
        getattr(world, where).extend([fault, fault])
        world.sink.assign({0})
        while world.bases.get(0) != 5:
            await asyncio.sleep(0.01)
            if world.runs.get(0) and 0 in world.sink.claims and world.runs[0][-1].position == 0:
                world.offer(0, 5)

    assert [(done.first, done.last) for done in play(poll, script).flushed] == [(0, 4)]


def test_a_halted_partition_stands_still_and_the_others_go_on(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.take_faults.append(Halt("the log expired"))
        world.sink.assign({0, 1})
        await world.taken(1, 1)
        world.offer(1, 5)
        await until(lambda: world.bases == {1: 5})
        assert world.sink.progress.halted == {0: "the log expired"}
        assert 0 not in world.runs
        world.sink.assign({0, 1})  # a new assignment looks again
        await world.taken(0, 1)
        assert not world.sink.progress.halted

    play(poll, script)


def test_a_partition_that_cannot_be_taken_does_not_hold_up_the_others(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.unavailable = {0}
        world.sink.assign({0, 1})
        await world.taken(1, 1)
        for count in (3, 6):
            world.offer(1, 3)
            await until(lambda: world.bases.get(1) == count)  # noqa: B023
        assert len(world.runs[1]) == 1, "it was not taken again for the other's sake"
        world.unavailable.clear()
        await world.taken(0, 1)

    play(poll, script)


def test_a_partition_that_another_claimed_rests_and_its_neighbours_are_flushed(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        world.take_faults.append(Lost("claimed by another"))
        world.sink.assign({0, 1})
        await world.taken(1, 1)
        assert 0 not in world.sink.claims
        world.offer(1, 3)
        await until(lambda: world.bases.get(1) == 3)
        await world.taken(0, 1)

    play(poll, script)
