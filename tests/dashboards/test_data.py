import asyncio
import threading

import pyarrow as pa
import pytest

from dashboards.board.data import QueryError, Source

TABLE = pa.table({"x": [1]})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_thirty_screens_that_ask_the_same_make_one_query() -> None:
    entered, go, runs = threading.Event(), threading.Event(), []

    def run(sql: str) -> pa.Table:
        runs.append(sql)
        entered.set()
        go.wait(60)
        return TABLE

    async def screens() -> list[pa.Table]:
        source = Source(run)
        asked = [asyncio.create_task(source.table("SELECT 1", 10)) for _ in range(30)]
        await asyncio.to_thread(entered.wait, 60)
        go.set()
        return await asyncio.gather(*asked)

    assert len(asyncio.run(screens())) == 30
    assert runs == ["SELECT 1"]


def test_an_answer_is_kept_until_it_is_too_old() -> None:
    clock, runs = Clock(), []

    async def ask() -> None:
        source = Source(lambda sql: runs.append(sql) or TABLE, clock=clock)
        await source.table("a", 10)
        clock.now = 9.9
        await source.table("a", 10)
        clock.now = 10
        await source.table("a", 10)

    asyncio.run(ask())
    assert runs == ["a", "a"]


def test_a_failure_is_told_to_all_who_wait_and_not_kept() -> None:
    runs = []

    def run(sql: str) -> pa.Table:
        runs.append(sql)
        if len(runs) == 1:
            raise QueryError("no such table")
        return TABLE

    async def ask() -> None:
        source = Source(run)
        results = await asyncio.gather(*(source.table("a", 10) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, QueryError) for result in results)
        await asyncio.sleep(0)
        assert (await source.table("a", 10)).num_rows == 1

    asyncio.run(ask())
    assert len(runs) == 2


def test_a_screen_that_leaves_does_not_take_the_answer_from_the_others() -> None:
    entered, go = threading.Event(), threading.Event()

    def run(_: str) -> pa.Table:
        entered.set()
        go.wait(60)
        return TABLE

    async def ask() -> int:
        source = Source(run)
        leaves, stays = (asyncio.create_task(source.table("a", 10)) for _ in range(2))
        await asyncio.to_thread(entered.wait, 60)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        go.set()
        return (await stays).num_rows

    assert asyncio.run(ask()) == 1


def test_the_cache_forgets_the_oldest_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboards.board.data.CACHE_ENTRIES", 3)
    runs = []

    async def ask() -> None:
        source = Source(lambda sql: runs.append(sql) or TABLE)
        for sql in ("a", "b", "c", "d", "d", "a"):
            await source.table(sql, 100)
            await asyncio.sleep(0)

    asyncio.run(ask())
    assert runs == ["a", "b", "c", "d", "a"]
