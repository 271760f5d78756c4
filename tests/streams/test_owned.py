"""What a partition has queued: joined, weighed, held back and let go."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import polars as pl
import pytest

from schemas.events import TOKENS
from streams import owned as module
from streams.intake import Intake, keyed
from streams.ledger import Claim, Position
from streams.owned import Owned
from streams.polled import Polled, Run

EVENT = (
    b'{"specversion":"1.0","type":"wattstream.tokens.v1","source":"s","id":"1","time":"2025-12-31T00:00:00Z",'
    b'"data":{"gateway":"g"}}'
)
NONE = pl.DataFrame(schema={"offset": pl.Int64})
BASE = 7


class Queue:
    """An owned partition whose decoding ends when it is told to."""

    def __init__(self, poll: Callable[..., Polled], share: float = 1 << 20) -> None:
        self._poll = poll
        self.share = share
        self.decoding: list[tuple[Polled, asyncio.Future[Intake]]] = []
        self.told = 0
        position = Position(Claim(TOKENS.topic, "id", 0, 1, uuid.UUID(int=0)), BASE, NONE, NONE)
        self.owned = Owned(position, Run(TOKENS.topic, 0, BASE), self._decode, lambda: self.share, self._told)

    def _decode(self, polled: Polled) -> asyncio.Future[Intake]:
        future: asyncio.Future[Intake] = asyncio.get_running_loop().create_future()
        self.decoding.append((polled, future))
        return future

    def _told(self) -> None:
        self.told += 1

    def add(self, count: int) -> None:
        self.owned.add(self._poll(TOKENS, [EVENT] * count, first=self.owned.expected, run=self.owned.run))

    async def decoded(self, number: int) -> None:
        polled, future = self.decoding[number]
        future.set_result(keyed(TOKENS, polled))
        await asyncio.sleep(0)


def play(script: Awaitable[None]) -> None:
    asyncio.run(script)  # type: ignore[arg-type]


def test_small_polls_are_decoded_together(poll: Callable[..., Polled], monkeypatch: pytest.MonkeyPatch) -> None:
    async def script() -> None:
        queue = Queue(poll)
        for _ in range(3):
            queue.add(20)
        assert queue.decoding == []
        assert queue.owned.waiting
        assert not queue.owned.ready
        queue.add(40)
        queue.add(5)
        queue.owned.decode_small()
        queue.owned.decode_small()  # nothing is left
        assert [(one.offsets[0], one.last) for one, _ in queue.decoding] == [(7, 106), (107, 111)]

    monkeypatch.setattr(module, "DECODE_MESSAGES", 100)
    play(script())


def test_its_portion_goes_on_where_the_one_before_ended(poll: Callable[..., Polled]) -> None:
    async def script() -> None:
        queue = Queue(poll)
        found = []
        for number, count in enumerate((5, 3)):
            queue.add(count)
            queue.owned.decode_small()
            await queue.decoded(number)
            assert queue.owned.rows == count
            assert queue.told == number + 1
            found.append(queue.owned.portion([queue.owned.take()]))
            assert queue.owned.underway
        assert [(one.first, one.last) for one in found] == [(7, 11), (12, 14)]
        assert not queue.owned.waiting
        assert queue.owned.flushed == queue.owned.expected == 15

    play(script())


def test_its_log_is_held_back_beyond_its_share_and_let_go_below_half_of_it(poll: Callable[..., Polled]) -> None:
    async def script() -> None:
        queue = Queue(poll, share=3.5 * len(EVENT) * 10)
        for number in range(4):
            assert queue.owned.run.open
            queue.add(10)
            queue.owned.decode_small()
            assert queue.owned.run.open == (number < 3)
        for number in range(4):
            await queue.decoded(number)
        queue.share = 1 << 30  # decoded frames have another size
        queue.owned.hold()
        assert not queue.owned.run.open, "what is held back is let go by a flush, not by a look"
        queue.share = 1.0
        queue.owned.portion([queue.owned.take()])
        assert not queue.owned.run.open
        queue.owned.portion([queue.owned.take() for _ in range(3)])
        assert queue.owned.run.open

    play(script())


def test_what_is_decoded_weighs_what_its_frames_do(poll: Callable[..., Polled]) -> None:
    async def script() -> None:
        queue = Queue(poll)
        queue.add(1000)
        queue.owned.decode_small()
        queue.share = 1000.0  # less than any frame of them
        assert queue.owned.run.open
        await queue.decoded(0)
        assert not queue.owned.run.open

    play(script())


def test_what_can_not_be_decoded_counts_no_rows_and_is_told(poll: Callable[..., Polled]) -> None:
    async def script() -> None:
        queue = Queue(poll)
        queue.add(10)
        queue.owned.decode_small()
        queue.decoding[0][1].set_exception(ValueError("broken"))
        await asyncio.sleep(0)
        assert queue.told == 1
        assert queue.owned.rows == 0
        with pytest.raises(ValueError, match="broken"):
            queue.owned.portion([queue.owned.take()])

    play(script())
