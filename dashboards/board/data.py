"""Queries of the board: Arrow over HTTP from ClickHouse, asked once however many screens want the same."""

import asyncio
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from schemas.errors import WattStreamError
from schemas.settings import Settings

PARALLEL = 4
"""Queries at a time: twice the cores that the embedded server is measured on; more only wait there."""

ROW_LIMIT = 100_000
"""Rows of an answer; a panel that wants more is a mistake, and is told so."""

QUERY_SETTINGS = {
    "max_threads": 1,  # a query on all cores starves the small ones of the other screens
    "max_execution_time": 20,
    "max_result_rows": ROW_LIMIT,
    "result_overflow_mode": "throw",
}

CACHE_ENTRIES = 1000
CACHE_BYTES = 128 * 1024 * 1024


class QueryError(WattStreamError):
    """A query that failed, in words for the panel that asked."""


Run = Callable[[str], pa.Table]
"""Runs a query, blocking. DateTime columns come as timestamps, not as numbers."""


@dataclass
class _Entry:
    answer: asyncio.Future[pa.Table]
    until: float
    size: int = 0


class Source:
    """Answers queries from a cache keyed on their expanded SQL; those under way are shared (single flight)."""

    def __init__(self, run: Run, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="query")
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.asked = 0
        self.ran = 0

    async def table(self, sql: str, keep_seconds: float) -> pa.Table:
        """The answer, not older than ``keep_seconds``.

        :raises QueryError: saying what ClickHouse said.
        """
        self.asked += 1
        entry = self._entries.get(sql)
        if entry is None or (entry.answer.done() and entry.until <= self._clock()):
            entry = self._start(sql, keep_seconds)
        # Shielded: a screen that goes away must not cancel what others wait for.
        return await asyncio.shield(entry.answer)

    def close(self) -> None:
        """Let no query start any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, sql: str, keep_seconds: float) -> _Entry:
        self.ran += 1
        answer = asyncio.get_running_loop().run_in_executor(self._pool, self._run, sql)
        entry = _Entry(answer, self._clock() + keep_seconds)
        self._entries[sql] = entry
        self._entries.move_to_end(sql)
        answer.add_done_callback(lambda done: self._finished(sql, entry, done))
        return entry

    def _finished(self, sql: str, entry: _Entry, done: asyncio.Future[pa.Table]) -> None:
        if done.cancelled() or done.exception() is not None:
            if self._entries.get(sql) is entry:
                del self._entries[sql]  # the next one asks again
            return
        entry.size = done.result().nbytes
        total = sum(e.size for e in self._entries.values())
        while len(self._entries) > CACHE_ENTRIES or (total > CACHE_BYTES and len(self._entries) > 1):
            _, dropped = self._entries.popitem(last=False)
            total -= dropped.size


def clickhouse(settings: Settings) -> Run:
    """Runs queries as the user viewer, one client a thread; types are asked for once a query's text."""
    local = threading.local()
    types: dict[str, dict[str, str]] = {}

    def client() -> Client:
        if not hasattr(local, "client"):
            local.client = settings.clickhouse_client("viewer")
        return local.client

    def run(sql: str) -> pa.Table:
        shape = re.sub(r"\d+", "0", sql)  # times and numbers don't change the types of the columns
        try:
            if shape not in types:
                if len(types) >= CACHE_ENTRIES:
                    types.clear()
                described = client().query(f"DESCRIBE TABLE ({sql})", settings=QUERY_SETTINGS)
                types[shape] = {row[0]: row[1] for row in described.result_rows}
            answer = client().query_arrow(sql, settings=QUERY_SETTINGS, use_strings=True)
        except ClickHouseError as error:
            raise QueryError(_words(error)) from error
        except (RequestException, HTTPError, OSError) as error:
            local.__dict__.clear()
            raise QueryError(f"ClickHouse does not answer at {settings.clickhouse_url}: is it running?") from error
        return with_times(answer, types[shape])

    return run


def with_times(table: pa.Table, types: dict[str, str]) -> pa.Table:
    """``table`` with DateTime columns as UTC timestamps: Arrow from ClickHouse has them as plain seconds."""
    for index, name in enumerate(table.column_names):
        if re.match(r"(Nullable\()?DateTime(\(|\)|$)", types.get(name, "")):
            seconds = table.column(index).cast(pa.int64()).cast(pa.timestamp("s"))
            table = table.set_column(index, name, seconds.cast(pa.timestamp("s", tz="UTC")))
    return table


def _words(error: ClickHouseError) -> str:
    """The engine's own sentence, without the wrapping of driver and protocol."""
    text = " ".join(str(error).split())
    found = re.search(r"Code: (\d+)\.? ?(?:DB::Exception: )?(.*)", text)
    if not found:
        return text[:600]
    return f"ClickHouse: {found[2].partition(' (version')[0][:600]} (code {found[1]})"


def values(column: pa.ChunkedArray) -> list[Any]:
    """One column as JSON can say it."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if is_time(kind):
        return column.cast(pa.timestamp("ms", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64()).to_pylist()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return [None if v is None or not math.isfinite(v) else float(v) for v in column.to_pylist()]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return column.to_pylist()
    return [None if v is None else str(v) for v in column.to_pylist()]


def is_time(kind: pa.DataType) -> bool:
    """Whether a column is a time."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column is a number."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
