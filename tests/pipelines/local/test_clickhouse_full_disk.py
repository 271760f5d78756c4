"""A disk that fills up under the embedded server: what it acknowledged is there once there is room again."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from pipelines.chaos.small_disk import SmallDisk, small_disk
from pipelines.local import processes
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import wait_until
from schemas.errors import WattStreamError
from tests.pipelines.local.conftest import Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROWS = 2_000
BEFORE = 30
"""Inserts until the disk fills up: by then there is something to merge."""


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    try:
        opened = small_disk()
        found = opened.__enter__()
    except WattStreamError as error:
        pytest.skip(str(error))
    yield found
    opened.__exit__(None, None, None)


def test_inserts_are_whole_or_refused_and_parts_that_were_lost_are_set_aside(disk: SmallDisk) -> None:
    home = Path(disk.folder) / "home"
    home.mkdir()
    server = Server(home)
    server.client().command("CREATE TABLE t (number Int64, text String) ENGINE = MergeTree ORDER BY number")
    numbers, acknowledged, refused, enough = itertools.count(), set[int](), list[str](), threading.Event()

    def insert() -> None:
        client = server.client()
        while not enough.is_set():
            number = next(numbers)
            try:
                client.raw_insert("t", ["number", "text"], f"{number}\t{'x' * 200}\n" * ROWS, fmt="TSV")
                acknowledged.add(number)
            except OperationalError:
                return  # the server has ended
            except DatabaseError as error:
                refused.append(str(error))

    writers = [threading.Thread(target=insert) for _ in range(2)]
    try:
        for writer in writers:
            writer.start()
        wait_until(lambda: len(acknowledged) > BEFORE, 60, "nothing is written")
        disk.fill()
        wait_until(lambda: len(refused) > BEFORE, 60, "a full disk refuses nothing")
        disk.free()
        assert server.process.wait(60) == 0
    finally:
        enough.set()
        for writer in writers:
            writer.join()
    assert all("NOT_ENOUGH_SPACE" in error for error in refused), set(refused)
    server.restart()
    # The text as well, so that each file of each part is read.
    rows = server.client().query("SELECT number, count(), max(text) FROM t GROUP BY number").result_rows
    server.stop()
    found = {number: count for number, count, _ in rows}
    assert {number: found.get(number) for number in acknowledged} == dict.fromkeys(acknowledged, ROWS)
    assert set(found.values()) == {ROWS}


def test_a_full_disk_costs_no_table_its_definition_and_none_starts_without_room(disk: SmallDisk, monkeypatch) -> None:
    home = Path(disk.folder) / "home"
    home.mkdir()
    server = Server(home)
    client = server.client()
    client.command("CREATE TABLE t (number Int64) ENGINE = MergeTree ORDER BY number")
    client.command("INSERT INTO t SELECT 7")
    disk.fill()
    for statement in (
        "ALTER TABLE t ADD COLUMN text String",
        "ALTER TABLE t DELETE WHERE 1 SETTINGS mutations_sync = 1",
        "CREATE TABLE more (number Int64) ENGINE = MergeTree ORDER BY number",
        "RENAME TABLE t TO renamed",
        "INSERT INTO t SELECT 8",
        "DROP TABLE t",
    ):
        with pytest.raises(DatabaseError, match="NOT_ENOUGH_SPACE"):
            client.command(statement)
    assert client.command("SELECT number FROM t") == 7
    server.stop()
    part = EmbeddedClickHouse(home, server.port)
    monkeypatch.setattr(processes, "ROOM_SECONDS", 0.5)
    with pytest.raises(WattStreamError, match="Make room for 64 MiB"):
        part.start()
    disk.free()
    part.prepare()
    server.restart()
    assert [row[0] for row in server.client().query("SHOW TABLES").result_rows] == ["t"]
    assert server.client().query("SELECT * FROM t").result_rows == [(7,)]
    server.stop()
