"""A partition that was taken and started: where it stands, and what of it waits for a flush, bounded in bytes."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streams.flush import Portion
from streams.intake import Intake
from streams.ledger import Position
from streams.polled import Polled, Run

# Small polls are joined before they are decoded, which costs about 2 ms whatever their size. A flush waits until the
# last ones are: of 4 MiB, and fetched by 1 MiB, 115,000 events a second as Arrow were 0.1 s older.
DECODE_MESSAGES = 10_000
DECODE_BYTES = 1 << 20


@dataclass(eq=False)
class Queued:
    """A poll whose decoding has begun; its messages' bytes are let go when that ends."""

    last: int
    arrived_ms: int
    intake: asyncio.Future[Intake]
    bytes: int


@dataclass(eq=False)
class Owned:
    """The partition, used in the event loop alone."""

    position: Position
    run: Run
    decode: Callable[[Polled], asyncio.Future[Intake]]
    """Begins to decode a poll elsewhere."""
    share: Callable[[], float]
    """Bytes that it may queue now, decoded ones included: beyond them its log is held back, below half let go again."""
    decoded: Callable[[], object]
    """Told when something was decoded."""
    expected: int = field(init=False)
    """The next offset that a poll must start from."""
    flushed: int = field(init=False)
    """The first offset of the next range."""
    underway: bool = False
    """Polls were taken from the queue for a flush that hasn't begun to be written."""
    _queue: deque[Queued] = field(default_factory=deque)
    _small: list[Polled] = field(default_factory=list)
    """Polls that wait for more before they are decoded."""
    _bytes: int = 0

    def __post_init__(self) -> None:
        self.expected = self.flushed = self.position.base

    @property
    def waiting(self) -> bool:
        """Whether anything waits for a flush."""
        return bool(self._queue or self._small)

    @property
    def ready(self) -> bool:
        """Whether `take` has something."""
        return bool(self._queue)

    @property
    def rows(self) -> int:
        """Events that wait, of polls that are decoded."""
        done = (queued.intake for queued in self._queue if queued.intake.done())
        return sum(intake.result().events for intake in done if intake.exception() is None)

    def add(self, polled: Polled) -> None:
        """The next poll, which starts where the one before ended."""
        self.expected = polled.last + 1
        self._bytes += polled.bytes
        self._small.append(polled)
        if (
            sum(len(one.values) for one in self._small) >= DECODE_MESSAGES
            or sum(one.bytes for one in self._small) >= DECODE_BYTES
        ):
            self.decode_small()
        self.hold()

    def hold(self) -> None:
        """Hold back the log where too much is queued."""
        if self._bytes > self.share():
            self.run.open = False

    def decode_small(self) -> None:
        """Wait for no more polls to join those that came."""
        if not self._small:
            return
        polled, self._small = Polled.joined(self._small), []
        queued = Queued(polled.last, polled.arrived[-1], self.decode(polled), polled.bytes)
        self._queue.append(queued)
        queued.intake.add_done_callback(lambda _: self._weigh(queued))

    def _weigh(self, queued: Queued) -> None:
        """What was decoded has another size, and counts while it waits."""
        if not queued.intake.cancelled() and queued.intake.exception() is None and queued in self._queue:
            intake = queued.intake.result()
            size = int(intake.frame.estimated_size() + intake.rejects.estimated_size())
            self._bytes += size - queued.bytes
            queued.bytes = size
            self.hold()
        self.decoded()

    def take(self) -> Queued:
        """The first in the queue, for a flush."""
        queued = self._queue.popleft()
        self.underway = True
        self._bytes -= queued.bytes
        return queued

    def portion(self, polls: Sequence[Queued]) -> Portion:
        """What was taken and decoded, as this partition's part of a flush; the log is let go where little is left."""
        if self._bytes < self.share() / 2:
            self.run.open = True
        first, last = self.flushed, polls[-1].last
        self.flushed = last + 1
        intakes = [poll.intake.result() for poll in polls]
        return Portion(self.position, first, last, intakes, polls[-1].arrived_ms)
