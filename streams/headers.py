"""Reads record batches in which a header's name is not UTF-8: Kafka takes them, and aiokafka raises for all of one.

Clients in C or Go can send one, and whoever reads its batch would fail at it again and again. The headers of such a
message count as none, here as in `schemas.envelope.headers_of`; its key, value and the messages beside it are read as
ever.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import (
    _DefaultRecordBatchPy,  # pyright: ignore[reportPrivateUsage]
    _DefaultRecordPy,  # pyright: ignore[reportPrivateUsage]
)
from aiokafka.record.memory_records import (
    MemoryRecords,
    _MemoryRecordsPy,  # pyright: ignore[reportPrivateUsage]
)


class KeptRecords(MemoryRecords):  # pyright: ignore[reportGeneralTypeIssues]
    """What was fetched of a partition, with its bytes, which aiokafka's reader in C doesn't give back."""

    def __init__(self, fetched: bytes) -> None:
        super().__init__(fetched)  # pyright: ignore[reportAbstractUsage] (its C class is not)
        self._again: Any = _MemoryRecordsPy(fetched)

    def read_again(self, base_offset: int) -> Iterator[_DefaultRecordPy]:
        """The records of the batch that begins there, by aiokafka's reader in Python; batches are asked for in order.

        :raises CorruptRecordException: where there is none.
        """
        while self._again.has_next():  # on from the one before: a fetch of 4 MiB may hold 10,000 such batches
            piece = self._again._next_slice
            if self._again.next_batch().base_offset == base_offset:
                return _lenient(_DefaultRecordBatchPy(bytes(piece)))
        raise CorruptRecordException(f"No batch begins at offset {base_offset}")


def _lenient(batch: Any) -> Iterator[_DefaultRecordPy]:
    batch._maybe_uncompress()
    batch._buffer = _Bytes(batch._buffer)
    for record in batch:
        yield record if all(_is_utf8(name) for name, _ in record.headers) else replace(record, headers=[])


class _Bytes(bytearray):
    """Of which parts are decoded whatever they are; only names of headers are."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Bytes(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return super().decode(encoding, errors)


def _is_utf8(name: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in name.partition("\0")[0])  # librdkafka sees no more


fetcher.MemoryRecords = KeptRecords  # the name by which it makes them
