"""What the tests of the sink share: a world around it, and scripts that are played there."""

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.events import TOKENS
from streams.audit import Turn
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
        self.start_faults: list[BaseException] = []
        self.take_faults: list[BaseException] = []
        self.unavailable: set[int] = set()
        self.unreadable: set[int] = set()
        self.asked: list[list[int]] = []
        self.before_claim: Callable[[], object] = lambda: None
        self.server = threading.Event()
        """While it is cleared, writes wait."""
        self.server.set()
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
            audit=lambda claims, ends: Turn([], whole=True),
            takers=pools[0],
            decoders=pools[1],
            writers=pools[2],
            flush_seconds=0.02,
            flush_rows=50,
            group_timeout_seconds=0.05,
        )

    async def start_run(self, run: Run) -> None:
        self.runs.setdefault(run.partition, []).append(run)
        if self.start_faults:
            raise self.start_faults.pop(0)
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
        self.server.wait(60)
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
