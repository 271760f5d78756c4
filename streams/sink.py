"""The effectively-once sink of one topic. There is no separate recovery: recovery is how every partition starts.

1. **Take** (takes.py). Claim the partition; wait until no insert of it runs in the server; look what is there. What
   stays ours over a rebalance, unclaimed by others, goes on without.
2. **Start** reading at the end of the done ranges.
3. **Flush** (flush.py) from the previous last + 1 up to a chosen offset: raw rows, dead letters, rollups. What an
   unfinished flush of before has landed is left out. The next flush is prepared while this one is written.
4. **Fence**. Each insert carries the claims and is refused in the server when a higher one exists.
5. **Done**: one row a range, contiguous with the one before.
6. **Trouble** of any kind (an error, a time-out, a break in the chain of offsets) means: take again.

7. **Audit** (audit.py), a turn between two flushes, of the partitions where nothing unfinished is left of before.

Never guessing (8) is ``Halt``, which leaves the partition alone and says why.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple, Protocol

import polars as pl
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from schemas.errors import WattStreamError
from schemas.events import EventType
from streams.audit import Turn
from streams.flush import Flush, Portion
from streams.intake import Intake, keyed
from streams.ledger import Claim, Halt, Lost, Position, Range
from streams.owned import Owned, Queued
from streams.polled import Polled, Run
from streams.progress import Progress
from streams.rhythm import Rhythm

log = logging.getLogger(__name__)

# Queued bytes of a topic, decoded ones included, at which the log is held back, each partition at its share of them;
# below half of that it is let go again.
QUEUE_BYTES = 64 << 20
# A take's queries name each partition: a few hundred bytes, where the server reads 256 KiB.
TAKEN_AT_ONCE = 100
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.1, 5.0
# What a server or a broker that is away, or starting, makes its clients raise: told in one line.
_EXPECTED = (WattStreamError, ClickHouseError, OSError)
# Of those, what says nothing of a single partition.
_AWAY = (WattStreamError, OperationalError, OSError)


Take = Callable[[Collection[int], Callable[[], bool]], Mapping[int, Position | Exception]]
"""Takes partitions, if they are still ours once it comes to claiming; each is there with what came of it, or not."""


class Reader(Protocol):
    """Delivers a partition from a position on (transport.Consumer)."""

    async def start_run(self, run: Run) -> None:
        """Its polls will come: the first ones perhaps before this returns."""
        ...


class _Rest(NamedTuple):
    """A partition that could not be taken: when it is tried again, by the loop's clock, and how long that is."""

    until: float
    seconds: float


class Sink:
    """Takes, reads and writes the partitions of one topic that this worker is assigned."""

    def __init__(
        self,
        event_type: EventType,
        *,
        reader: Reader,
        take: Take,
        held: Callable[[Sequence[Claim]], set[int]],
        flush: Flush,
        audit: Callable[[Mapping[int, Claim], Mapping[int, int]], Turn] | None = None,
        takers: Executor,
        decoders: Executor,
        writers: Executor,
        flush_seconds: float,
        flush_rows: int,
        group_timeout_seconds: float,
    ) -> None:
        self.event_type = event_type
        self.progress = Progress()
        self._reader = reader
        self._take_blocking = take
        self._held_blocking = held
        self._flush = flush
        self._audit_blocking = audit
        self._takers = takers
        self._decoders = decoders
        self._writers = writers
        self._rhythm = Rhythm(flush_seconds)
        self._flush_rows = flush_rows
        self._group_timeout_seconds = group_timeout_seconds
        self._assigned: set[int] = set()
        self._owned: dict[int, Owned] = {}
        self._kept: dict[int, Owned] = {}
        self._generation = 0
        self._writing: Future[list[Range]] | None = None
        self._rebalances = 0
        """Each counts twice: what was is given up, then what will be is told."""
        self._written_under = 0
        """The value of that when what is being written began."""
        self._woken = asyncio.Event()
        self._resting: dict[int, _Rest] = {}
        self._told: type[BaseException] | None = None

    # What Faust calls ------------------------------------------------------------------------------------------------

    def assign(self, partitions: set[int]) -> None:
        """These are ours now, after a rebalance: what stayed goes on where it was, the others are taken."""
        self._set_aside()
        self._kept = {number: kept for number, kept in self._kept.items() if number in partitions}
        self._assigned = set(partitions)
        self._resting = {}
        self.progress.assigned(partitions, asyncio.get_running_loop().time())
        self._woken.set()

    def revoke(self) -> None:
        """Nothing is ours until the next assignment. What still runs in ClickHouse is the fence's business."""
        self._set_aside()
        self._assigned = set()
        self.progress.revoked()

    def offer(self, polled: Polled) -> None:
        """A poll of one of the partitions: dropped if stale; a break in the chain makes the partition start anew."""
        owned = self._owned.get(polled.run.partition)
        if owned is None or owned.run is not polled.run:
            return
        if polled.expected != owned.expected:
            log.warning(
                "%s/%d: a poll from %d came where one from %d was due; taking the partition again",
                self.event_type.topic,
                polled.run.partition,
                polled.expected,
                owned.expected,
            )
            self._drop(polled.run.partition)
            return
        owned.add(polled)
        self._woken.set()

    def _decode(self, polled: Polled) -> asyncio.Future[Intake]:
        return asyncio.get_running_loop().run_in_executor(self._decoders, keyed, self.event_type, polled)

    @property
    def _share(self) -> float:
        """Bytes that a partition may queue."""
        return QUEUE_BYTES / max(1, len(self._owned))

    def audit_soon(self) -> None:
        """Audit before the next flush, or after it where the last one was just before."""
        if self._audit_blocking is not None:
            self._rhythm.ask_audit()
            self._woken.set()

    # The loop --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take what is assigned and not owned, flush what is queued, for ever; trouble only ever means: take again."""
        retry_after = FIRST_RETRY_SECONDS
        while True:
            try:
                if self._due or self._audits_turn:
                    await self._settle()
                    await self._take_due()
                    await self._audit()
                if await self._wait_for_work():
                    await self._flush_once()
                if self._told and not self._missing:
                    log.info("%s: all its partitions are taken again", self.event_type.topic)
                    self._told = None
                retry_after = FIRST_RETRY_SECONDS
            except (Exception, pl.exceptions.PanicException) as error:
                self._tell(error, "its partitions")
                self._abandon()
                await asyncio.sleep(retry_after)
                retry_after = min(retry_after * 2, LONGEST_RETRY_SECONDS)

    def _tell(self, error: BaseException, what: str) -> None:
        """Once, until all is well again: a server that is away fails every time."""
        self.progress.troubles += 1
        if type(error) is self._told:
            return
        self._told = type(error)
        # An address may carry a whole statement: its beginning says enough.
        why = f"{self._told.__name__}: {str(error)[:300].partition(chr(10))[0]}"
        trace = None if isinstance(error, _EXPECTED) else error
        log.warning("%s: %s; taking %s again", self.event_type.topic, why, what, exc_info=trace)

    async def _take_due(self) -> None:
        generation = self._generation
        await self._resume(generation)
        # Claiming what is another's by now would fence it.
        if generation == self._generation and (due := sorted(self._due)):
            await self._take(due[:TAKEN_AT_ONCE], generation)

    async def _resume(self, generation: int) -> None:
        """Go on with what stayed ours over a rebalance, if nobody has claimed it meanwhile.

        A position is as good as its claim: while that is the highest, nobody else can have written. Who claims after
        this look fences us, as ever. It saves taking anew what a restarted worker was not given: half of a recovery.
        """
        if not self._assigned:
            return  # between the two halves of a rebalance: an audit that was due brought us here
        kept = {number: owned for number, owned in self._kept.items() if not owned.underway}
        self._kept = {}
        if not kept:
            return
        claims = [owned.position.claim for owned in kept.values()]
        loop = asyncio.get_running_loop()
        held = await loop.run_in_executor(self._takers, self._held_blocking, claims)
        for partition in sorted(kept.keys() & held):
            if generation == self._generation:
                await self._start(partition, kept[partition], generation)

    async def _start(self, partition: int, owned: Owned, generation: int) -> bool:
        """Read on from where the polls ended; False where a rebalance came between.

        It is ours before it is started: a poll that was here before `start_run` returned would else be taken for a
        stale one, and where nothing follows it nobody would miss it.
        """
        run = owned.run = Run(self.event_type.topic, partition, owned.expected)
        self._owned[partition] = owned
        owned.hold()
        self.progress.reached(partition, owned.flushed, asyncio.get_running_loop().time(), run)
        try:
            await self._reader.start_run(run)
        except BaseException:
            if self._owned.get(partition) is owned:
                self._drop(partition)
            raise
        return generation == self._generation

    @property
    def _due(self) -> set[int]:
        """What is missing and isn't left alone for a while."""
        now = asyncio.get_running_loop().time()
        return {p for p in self._missing if p not in self._resting or self._resting[p].until <= now}

    def _rest(self, partition: int, seconds: float | None = None) -> None:
        """Leave it alone for a while, each time for longer unless told: the topic's others go on meanwhile."""
        if seconds is None:
            before = self._resting.get(partition)
            seconds = min(2 * before.seconds, LONGEST_RETRY_SECONDS) if before else FIRST_RETRY_SECONDS
        self._resting[partition] = _Rest(asyncio.get_running_loop().time() + seconds, seconds)

    @property
    def _missing(self) -> set[int]:
        return self._assigned - self._owned.keys() - self.progress.halted.keys()

    async def _take(self, partitions: Sequence[int], generation: int) -> None:
        """Steps 1 and 2."""
        loop = asyncio.get_running_loop()
        taken: Mapping[int, Position | BaseException]
        try:
            taken = await loop.run_in_executor(
                self._takers, self._take_blocking, partitions, lambda: generation == self._generation
            )
        except (Exception, pl.exceptions.PanicException) as error:
            if len(partitions) > 1 and not isinstance(error, _AWAY):  # of what one of them asks, perhaps
                for partition in partitions:
                    if generation == self._generation:
                        await self._take([partition], generation)
                return
            taken = dict.fromkeys(partitions, error)
        if generation != self._generation:
            return  # a rebalance came between: who owns what is told anew
        positions: dict[int, Position] = {}
        for partition, outcome in sorted(taken.items()):
            if isinstance(outcome, Position):
                positions[partition] = outcome
            else:
                self._not_taken(partition, outcome)
        for partition, position in positions.items():
            if generation == self._generation:
                await self._begin(partition, position, generation)

    def _not_taken(self, partition: int, why: BaseException) -> None:
        if isinstance(why, Halt):
            log.error("%s", why)
            self.progress.halted[partition] = str(why)
        elif isinstance(why, Lost):
            log.warning("%s; waiting a group time-out before claiming anew", why)
            self._rest(partition, self._group_timeout_seconds)
        else:
            self._tell(why, f"partition {partition}")
            self._rest(partition)

    async def _begin(self, partition: int, position: Position, generation: int) -> None:
        run = Run(self.event_type.topic, partition, position.base)
        owned = Owned(position, run, self._decode, lambda: self._share, self._woken.set)
        if not await self._start(partition, owned, generation):
            return
        self._resting.pop(partition, None)
        self.progress.takes += 1
        log.info(
            "%s/%d: taken at epoch %d, from %d", self.event_type.topic, partition, position.claim.epoch, position.base
        )

    async def _wait_for_work(self) -> bool:
        """True when a flush is due, False when a take or an audit is.

        A flush is due with rows or bytes enough, or by its rhythm where none is being written.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._writing is not None and self._writing.done():
                await self._settle()
            self._rhythm.look(loop.time(), waiting=self._waiting)
            if self._due or self._audits_turn:
                return False
            late = self._rhythm.late(loop.time())
            if self._waiting and (self._full or (late and self._writing is None)):
                return True
            self._woken.clear()
            try:
                async with asyncio.timeout_at(self._next(None if late else self._rhythm.due)):
                    await self._woken.wait()
            except TimeoutError:
                continue

    @property
    def _waiting(self) -> bool:
        return any(owned.waiting for owned in self._owned.values())

    @property
    def _audits_turn(self) -> bool:
        return self._rhythm.audits_turn(waiting=self._waiting)

    def _next(self, due: float | None) -> float | None:
        """When to look again: at a flush's time, or when a partition has rested."""
        ends = [rest.until for partition, rest in self._resting.items() if partition in self._missing]
        return min([*ends, *([] if due is None else [due])], default=None)

    @property
    def _full(self) -> bool:
        owned = self._owned.values()
        return sum(one.rows for one in owned) >= self._flush_rows or any(
            one.waiting and not one.run.open for one in owned
        )

    async def _flush_once(self) -> None:
        """Step 3 for what is queued, up to about ``flush_rows`` rows; 4 and 5 go on beside the next flush's step 3."""
        generation = self._generation
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._rhythm.flush_begins(begun)
        for owned in self._owned.values():
            owned.decode_small()
        portions = await self._portions()
        if not portions or generation != self._generation:
            return
        settled = self._writing.result if self._writing else lambda: None
        try:
            prepared = await loop.run_in_executor(self._writers, self._flush.prepare, portions, settled)
        except Lost:  # the flush before this one was refused, which is told there
            await self._settle()
            if generation == self._generation:
                raise
            return
        rows = sum(intake.events for portion in portions for intake in portion.intakes)
        del portions  # their frames: waiting for ClickHouse costs the memory of what is encoded, and no more
        await self._settle()
        if generation != self._generation:
            return
        # A partition that was dropped meanwhile is written with the others: its claim is still ours to lose.
        self._writing, self._written_under = self._writers.submit(self._flush.write, prepared), self._rebalances
        for owned in self._owned.values():
            owned.underway = False
        self._writing.add_done_callback(lambda _: loop.call_soon_threadsafe(self._written, begun, rows))

    def _written(self, begun: float, rows: int) -> None:
        self._rhythm.flush_ends(asyncio.get_running_loop().time() - begun, rows)
        self._woken.set()

    async def _settle(self) -> None:
        """Wait until what is being written is done, and count it."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            self._count(await asyncio.wrap_future(writing))
        except Lost as lost:
            if self._written_under == self._rebalances:
                await self._yield_to(lost)
                return
            # Of before a rebalance, with a partition in it that was given away: what is ours is newly ours.
            log.info("%s; taking again what stayed", lost)
            self._abandon()

    async def _audit(self) -> None:
        """Step 7, where it is due."""
        if not self._audits_turn or self._audit_blocking is None:
            return
        self._rhythm.audit_begins()
        ends = {p: owned.flushed for p, owned in self._owned.items() if owned.flushed >= owned.position.reach}
        claims = {partition: self._owned[partition].position.claim for partition in ends}
        try:
            turn = await asyncio.get_running_loop().run_in_executor(self._writers, self._audit_blocking, claims, ends)
        except Lost as lost:
            await self._yield_to(lost)
            return
        if turn.whole:
            self.progress.audits += 1
        else:
            self._rhythm.ask_audit()
        self.progress.differences += len(turn.found)
        self.progress.mended += sum(difference.mended for difference in turn.found)
        for difference in turn.found:
            log.error("%s: the audit found a difference: %s", self.event_type.topic, difference)

    async def _yield_to(self, lost: Lost) -> None:
        """Fenced while still assigned: Kafka will tell within a group time-out; if not, the partition is ours."""
        log.warning("%s; waiting for a rebalance, or a group time-out, before taking again", lost)
        self._abandon()
        known = self._rebalances
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._group_timeout_seconds):
                while known == self._rebalances:
                    self._woken.clear()
                    await self._woken.wait()

    async def _portions(self) -> list[Portion]:
        """A poll of each partition in turn, until there are rows enough."""
        taken: dict[int, tuple[Owned, list[Queued]]] = {}
        rows = 0
        while rows < self._flush_rows and (ready := [item for item in self._owned.items() if item[1].ready]):
            for partition, owned in ready:
                queued = owned.take()
                taken.setdefault(partition, (owned, []))[1].append(queued)
                rows += (await queued.intake).events
        return [owned.portion(polls) for p, (owned, polls) in taken.items() if self._owned.get(p) is owned]

    def _count(self, ranges: list[Range]) -> None:
        now = asyncio.get_running_loop().time()
        self.progress.flushes += 1
        for done in ranges:
            for name in ("messages", "events", "rows", "duplicates", "rejects"):
                setattr(self.progress, name, getattr(self.progress, name) + getattr(done, name))
            self.progress.reached(done.partition, done.last + 1, now)

    def _abandon(self) -> None:
        self._generation += 1
        self._kept = {}
        for partition in list(self._owned):
            self._drop(partition)

    def _set_aside(self) -> None:
        """A rebalance: nothing is read, and what is queued waits for who gets the partitions."""
        self._rebalances += 1
        self._generation += 1
        for partition in list(self._owned):
            self._kept[partition] = self._owned[partition]
            self._drop(partition)

    def _drop(self, partition: int) -> None:
        self._owned.pop(partition).run.open = False
        self._woken.set()

    @property
    def claims(self) -> dict[int, Claim]:
        """The claims held, by partition."""
        return {partition: owned.position.claim for partition, owned in self._owned.items()}
