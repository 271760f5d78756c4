"""Batches with headers that aiokafka can't read, read all the same, as often as there are some."""

import pytest
from aiokafka.errors import CorruptRecordException

from streams.headers import KeptRecords
from tests.headers import batch_of


@pytest.mark.parametrize("codec", range(5), ids=["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_message_without_readable_headers_has_none_and_its_neighbours_theirs(codec: int) -> None:
    records = KeptRecords(batch_of([b"a", b"b" * 1000, b"c"], odd=[1], first=70, codec=codec))
    batch = records.next_batch()
    assert batch is not None
    with pytest.raises(UnicodeDecodeError):
        list(batch)
    read = list(records.read_again(batch.base_offset))
    assert [(record.offset, record.key, record.value) for record in read] == [
        (70, b"k", b"a"),
        (71, b"k", b"b" * 1000),
        (72, b"k", b"c"),
    ]
    assert [record.headers for record in read] == [[("fine", b"y")], [], [("fine", b"y")]]


def test_a_fetch_of_many_such_batches_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = KeptRecords(b"".join(batch_of([b"v"], odd=[0], first=offset) for offset in range(500)))
    walked: list[int] = []
    step = type(records._again).next_batch
    monkeypatch.setattr(type(records._again), "next_batch", lambda self: walked.append(1) or step(self))
    for offset in range(0, 500, 2):
        assert [record.offset for record in records.read_again(offset)] == [offset]
    assert len(walked) == 499
    with pytest.raises(CorruptRecordException):
        records.read_again(0)
