"""The loop of a topic: what is assigned is taken, what comes is flushed in order, trouble only means: take again."""

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.events import TOKENS
from streams import owned as owned_module
from streams import sink as sink_module
from streams.audit_raw import Difference
from streams.flush import Portion
from streams.ledger import Claim, Halt, Lost, Position, Range
from streams.polled import Polled, Run
from streams.sink import Sink

EVENT = (
    b'{"specversion":"1.0","type":"wattstream.tokens.v1","source":"s","id":"1","time":"2025-12-31T00:00:00Z",'
    b'"data":{"gateway":"g"}}'
)


class World:
    """Kafka and ClickHouse as the sink sees them: a log of endless messages, a ledger, and faults on order."""

    def __init__(self, poll: Callable[..., Polled]) -> None:
        self.poll = poll
        self.runs: dict[int, list[Run]] = {}
        self.started: Callable[[int], None] = lambda partition: None
        self.bases: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.take_faults: list[BaseException] = []
        self.unavailable: set[int] = set()
        self.unreadable: set[int] = set()
        self.asked: list[list[int]] = []
        self.before_claim: Callable[[], object] = lambda: None
        self.flush_faults: list[BaseException] = []
        self.prepared: list[int] = []
        self.flushed: list[Range] = []
        pools = [ThreadPoolExecutor(2) for _ in range(3)]
        self.sink = Sink(
            TOKENS,
            reader=self,
            take=self.take,
            held=self.held,
            flush=self,  # type: ignore[arg-type]
            audit=lambda claims, ends: [],
            takers=pools[0],
            decoders=pools[1],
            writers=pools[2],
            flush_seconds=0.02,
            flush_rows=50,
            group_timeout_seconds=0.05,
        )

    async def start_run(self, run: Run) -> None:
        self.runs.setdefault(run.partition, []).append(run)
        self.started(run.partition)

    def take(self, partitions: Collection[int], ours: Callable[[], bool]) -> dict[int, Position | Exception]:
        self.asked.append(sorted(partitions))
        self.before_claim()
        return {partition: self._take(partition) for partition in sorted(partitions)} if ours() else {}

    def _take(self, partition: int) -> Position | Exception:
        if self.take_faults:
            fault = self.take_faults.pop(0)
            if not isinstance(fault, Halt | Lost):
                raise fault
            return fault
        if partition in self.unreadable:
            raise DatabaseError("a part of it is broken")
        if partition in self.unavailable:
            return ConnectionError("no leader")
        self.epochs[partition] = self.epochs.get(partition, 0) + 1
        claim = Claim(TOKENS.topic, "id", partition, self.epochs[partition], uuid.UUID(int=0))
        nothing = pl.DataFrame(schema={"offset": pl.Int64})
        return Position(claim, self.bases.get(partition, 0), nothing, nothing)

    def held(self, claims: Sequence[Claim]) -> set[int]:
        return {claim.partition for claim in claims if claim.epoch == self.epochs[claim.partition]}

    def prepare(self, portions: Sequence[Portion], settled: Callable[[], object]) -> Sequence[Portion]:
        self.settled = settled
        self.prepared.append(portions[0].first)
        return portions

    def write(self, portions: Sequence[Portion]) -> list[Range]:
        if self.flush_faults:
            raise self.flush_faults.pop(0)
        ranges: list[Range] = []
        for portion in portions:
            assert portion.first == self.bases.get(portion.partition, 0), "contiguous"
            events = sum(intake.events for intake in portion.intakes)
            messages = sum(intake.messages for intake in portion.intakes)
            ranges.append(Range(portion.partition, portion.first, portion.last, messages, events, events, 0, 0, 0, 0))
            self.bases[portion.partition] = portion.last + 1
        self.flushed += ranges
        return ranges

    def offer(self, partition: int, count: int, *, run: Run | None = None, expected: int | None = None) -> None:
        """One poll of the newest run, or of another."""
        run = run or self.runs[partition][-1]
        polled = self.poll(TOKENS, [EVENT] * count, first=run.position if expected is None else expected, run=run)
        run.position = polled.last + 1
        self.sink.offer(polled)

    async def taken(self, partition: int, times: int) -> None:
        await until(lambda: len(self.runs.get(partition, [])) >= times and partition in self.sink.claims)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def play(poll: Callable[..., Polled], script: Callable[[World], Awaitable[None]]) -> World:
    async def main() -> World:
        world = World(poll)
        loop = asyncio.create_task(world.sink.run())
        try:
            await script(world)
        finally:
            loop.cancel()
        return world

    return asyncio.run(main())


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
        def refuse(partition: int) -> None:
            world.started = lambda partition: None
            raise ConnectionError("not assigned any more")

        world.started = refuse
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


def test_a_start_that_fails_loses_nothing_of_what_the_take_found_of_others(poll: Callable[..., Polled]) -> None:
    async def script(world: World) -> None:
        def refuse(partition: int) -> None:
            world.started = lambda partition: None
            raise ConnectionError("not assigned any more")

        world.started = refuse
        world.take_faults = [Halt("the log expired")]  # of partition 0; 1 can't be started
        world.sink.assign({0, 1})
        await world.taken(1, 2)
        assert world.sink.progress.halted == {0: "the log expired"}
        assert world.asked == [[0, 1], [1]]

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


def test_audits_that_take_as_long_as_the_time_between_them_leave_flushes_their_turn(
    poll: Callable[..., Polled],
) -> None:
    async def script(world: World) -> None:
        def audit(claims: Mapping[int, Claim], ends: Mapping[int, int]) -> list[Difference]:
            loop.call_soon_threadsafe(world.sink.audit_soon)  # the next is due before this one ends
            return []

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


def test_a_slow_clickhouse_holds_back_the_log_and_lets_it_go_again(
    poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "QUEUE_BYTES", 40_000)

    async def script(world: World) -> None:
        gate = threading.Event()
        write = world.write

        def slow(portions: Sequence[Portion]) -> list[Range]:
            gate.wait(60)
            return write(portions)

        world.write = slow  # type: ignore[method-assign]
        world.sink.assign({0})
        await world.taken(0, 1)
        held = world.runs[0][0]
        offered = 0
        while held.open:
            world.offer(0, 20)
            offered += 20
            await asyncio.sleep(0.001)
            assert offered < 10_000, "nothing holds it back"
        gate.set()
        await until(lambda: held.open and world.bases == {0: offered})

    play(poll, script)


def test_the_next_flush_is_prepared_while_one_is_written_and_written_after_it(
    poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_module, "DECODE_MESSAGES", 50)  # or they are joined

    async def script(world: World) -> None:
        gate = threading.Event()
        write = world.write

        def slow(portions: Sequence[Portion]) -> list[Range]:
            gate.wait(60)
            return write(portions)

        world.write = slow  # type: ignore[method-assign]
        world.sink.assign({0})
        await world.taken(0, 1)
        for _ in range(3):
            world.offer(0, 50)
            await asyncio.sleep(0)
        await until(lambda: world.prepared == [0, 50])
        assert world.flushed == []
        gate.set()
        await until(lambda: world.bases == {0: 150})
        assert world.prepared == [0, 50, 100]

    play(poll, script)


def test_what_is_prepared_behind_a_flush_that_fails_is_not_written(
    poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_module, "DECODE_MESSAGES", 50)  # or they are joined

    async def script(world: World) -> None:
        gate = threading.Event()
        write = world.write

        def failing(portions: Sequence[Portion]) -> list[Range]:
            gate.wait(60)
            world.write = write  # type: ignore[method-assign]
            raise ConnectionError("away")

        world.write = failing  # type: ignore[method-assign]
        world.sink.assign({0})
        await world.taken(0, 1)
        world.offer(0, 50)
        world.offer(0, 50)
        await until(lambda: world.prepared == [0, 50])
        gate.set()
        await world.taken(0, 2)
        assert world.flushed == []
        assert world.runs[0][-1].position == 0
        with pytest.raises(ConnectionError):  # what waits for identities learns of it, too
            world.settled()

    play(poll, script)


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
