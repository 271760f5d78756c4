"""Messages as clients in C or Go can send them: with a header whose name is not UTF-8."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import (
    _DefaultRecordBatchBuilderPy,  # pyright: ignore[reportPrivateUsage]
)

NO_UTF8 = b"\xff\xfe"


class _Name(str):
    """Which aiokafka's builder in Python encodes."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return NO_UTF8


def batch_of(values: Sequence[bytes], odd: Sequence[int], first: int = 0, codec: int = 0) -> bytes:
    """A batch as a broker gives it, from offset ``first`` on."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, False, -1, -1, -1, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, 1, b"k", value, [(_Name("odd"), b"x")] if number in odd else [("fine", b"y")])
    return first.to_bytes(8) + bytes(builder.build())[8:]  # the checksum begins after it


def send(bootstrap: str, topic: str, partition: int, values: Sequence[bytes], odd: Sequence[int]) -> None:
    """All values in one batch, each with a content type, and those at ``odd`` with such a header before it."""
    asyncio.run(_send(bootstrap, topic, partition, values, odd))


async def _send(bootstrap: str, topic: str, partition: int, values: Sequence[bytes], odd: Sequence[int]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        batch: Any = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, False, -1, -1, 0, 1 << 20)
        for number, value in enumerate(values):
            headers: list[tuple[str, bytes]] = [(_Name("odd"), b"x")] if number in odd else []
            headers.append(("content-type", b"application/json"))
            batch.append(key=b"k", value=value, timestamp=None, headers=headers)
        await (await producer.send_batch(batch, topic, partition=partition))
