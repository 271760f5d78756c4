"""Whether a disk was full while something was written, by looks at told times."""

import pytest

from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_room import FULL_BYTES, KEPT_FREE_BYTES, LOOK_SECONDS, Room


class Disk:
    def __init__(self) -> None:
        self.now, self.free = 0.0, 1 << 40
        self.room = Room(lambda: self.free, lambda: self.now)

    def at(self, now: float, free: int) -> bool:
        self.now, self.free = now, free
        return self.room.is_back()


def test_what_was_under_way_while_the_disk_was_full_is_refused_and_nothing_else() -> None:
    disk = Disk()
    disk.at(1.0, FULL_BYTES)
    disk.room.require(0.0)
    disk.at(2.0, FULL_BYTES - 1)
    disk.at(2.0 + LOOK_SECONDS, KEPT_FREE_BYTES)
    for begun in (1.0, 2.0, 2.0 + LOOK_SECONDS):  # the last may have begun on a full disk, before the next look
        with pytest.raises(ClickHouseError, match="disk is full"):
            disk.room.require(begun)
    disk.room.require(2.0 + 3 * LOOK_SECONDS)


def test_an_end_looks_itself() -> None:
    disk = Disk()
    disk.now, disk.free = 5.0, 0
    with pytest.raises(ClickHouseError, match="NOT_ENOUGH_SPACE"):
        disk.room.require(4.0)


def test_room_is_back_only_after_a_full_disk_and_where_the_engine_writes_again() -> None:
    disk = Disk()
    assert not disk.at(1.0, KEPT_FREE_BYTES)
    assert not disk.at(2.0, FULL_BYTES)
    assert not disk.at(3.0, 0)
    assert not disk.at(4.0, KEPT_FREE_BYTES - 1)
    assert disk.at(5.0, KEPT_FREE_BYTES)
