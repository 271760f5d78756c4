"""What counts as written while a disk is full, and after."""

import threading

import pytest

from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_room import FULL_BYTES, KEPT_FREE_BYTES, Room
from pipelines.local.processes import wait_until


class Disk:
    def __init__(self) -> None:
        self.free = 1 << 40
        self.room = Room(lambda: self.free)

    def look(self, free: int) -> bool:
        self.free = free
        self.room.look()
        return self.room.is_back


def test_once_the_disk_was_full_nothing_is_written_until_a_start() -> None:
    disk = Disk()
    disk.look(FULL_BYTES)
    disk.room.require()
    disk.look(FULL_BYTES - 1)
    for free in (FULL_BYTES - 1, KEPT_FREE_BYTES, 1 << 40):
        disk.look(free)
        with pytest.raises(ClickHouseError, match="disk is full"):
            disk.room.require()


def test_who_requires_room_looks_himself() -> None:
    disk = Disk()
    disk.free = 0
    with pytest.raises(ClickHouseError, match="NOT_ENOUGH_SPACE"):
        disk.room.require()


def test_room_is_back_only_after_a_full_disk_and_where_the_engine_writes_again() -> None:
    disk = Disk()
    assert not disk.look(KEPT_FREE_BYTES)
    assert not disk.look(FULL_BYTES)
    assert not disk.look(0)
    assert not disk.look(KEPT_FREE_BYTES - 1)
    assert disk.look(KEPT_FREE_BYTES)


def test_the_watch_tells_of_a_full_disk_until_it_is_heard_and_then_of_room() -> None:
    disk, told, back = Disk(), list[int](), threading.Event()

    def full() -> None:
        told.append(disk.free)
        if len(told) == 1:
            raise RuntimeError("the engine is busy")

    disk.room.watch(full, back.set)
    disk.free = 0
    wait_until(lambda: len(told) > 1, 10, "nobody is told that the disk is full")
    assert not back.is_set()
    disk.free = KEPT_FREE_BYTES
    assert back.wait(10)
    assert told == [0, 0]


def test_the_watch_tells_of_a_full_disk_that_only_another_look_found() -> None:
    disk, told = Disk(), list[str]()
    disk.look(0)
    disk.free = KEPT_FREE_BYTES
    disk.room.watch(lambda: told.append("full"), lambda: told.append("back"))
    wait_until(lambda: "back" in told, 10, "nobody is told that there is room")
    assert told == ["full", "back"]


def test_the_watch_outlives_a_look_that_fails() -> None:
    answers = iter([OSError("the disk is gone for a moment"), 0, KEPT_FREE_BYTES])

    def free() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    back = threading.Event()
    Room(free).watch(lambda: None, back.set)
    assert back.wait(10)
