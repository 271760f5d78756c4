"""The engine in process: chdb connections with a role, statements run on them, inserts fed with bodies.

Everything here blocks; the server calls it in threads. The engine releases the GIL while it works.
"""

import contextlib
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chdb import _chdb as _compiled

from pipelines.local import access
from pipelines.local.clickhouse_arrow import ArrowSplice
from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_folder import ENGINE
from pipelines.local.clickhouse_room import KEPT_FREE_BYTES, Room
from pipelines.local.clickhouse_statement import Statement
from schemas.errors import WattStreamError
from schemas.settings import DATABASE

_chdb: Any = _compiled  # type checkers see the folder beside it that has the same name

# What the engine cuts into blocks that can be put one after the other; the rest is made whole before it is sent.
_STREAMED = frozenset(
    [
        "Native",
        "TabSeparated",
        "TSV",
        "TabSeparatedRaw",
        "TSVRaw",
        "CSV",
        "RowBinary",
        "JSONEachRow",
        "JSONLines",
        "NDJSON",
        "JSONCompactEachRow",
        "LineAsString",
        "ArrowStream",
    ]
)
# A setting of the engine that does nothing here (the query cache is off) and shows in system.processes: it tells our
# queries apart, as the id of a query can't be set.
_TAG = "query_cache_tag"
_IDENTIFIER = re.compile(r"[A-Za-z0-9_$]+\Z")
# For an input(): blocks stay whole, one part a month for a flush, and its types are as free as there.
INPUT_SETTINGS = {
    "max_insert_threads": b"1",
    "min_insert_block_size_rows": b"4000000",
    "min_insert_block_size_bytes": b"2000000000",
    "max_insert_block_size": b"4000000",
    "input_format_parallel_parsing": b"0",
    "allow_suspicious_low_cardinality_types": b"1",
    "allow_suspicious_fixed_string_types": b"1",
}

# Statistics of every column, which no query of ours needs, took 0.13 s a million rows of insert, and more in merges.
_CONFIG = """<clickhouse>
<users_config>{users}</users_config>
<display_name>wattstream</display_name>
<merge_tree><auto_statistics_types></auto_statistics_types></merge_tree>
<query_log>
<database>system</database><table>query_log</table>
<partition_by>toMonday(event_date)</partition_by><ttl>event_date + INTERVAL 7 DAY DELETE</ttl>
<flush_interval_milliseconds>5000</flush_interval_milliseconds>
</query_log>
<storage_configuration><disks><default>
<keep_free_space_bytes>{kept_free}</keep_free_space_bytes>
</default></disks></storage_configuration>
</clickhouse>
"""


@dataclass
class Summary:
    """What a statement read and wrote."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0

    def take(self, result: Any) -> None:
        """Add up one result of the engine."""
        self.read_rows += result.storage_rows_read()
        self.read_bytes += result.storage_bytes_read()
        self.written_rows += result.rows_written()
        self.written_bytes += result.bytes_written()
        self.result_rows += result.rows_read()
        self.result_bytes += result.size()
        self.elapsed_ns += int(result.elapsed() * 1e9)


@dataclass(frozen=True)
class ExternalTable:
    """Data sent along with a query, readable in it as a table."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass(frozen=True)
class Job:
    """One statement with all it needs; ``body`` is the inline data of an INSERT, in ``format``."""

    statement: Statement
    format: str
    user: str
    database: str | None
    settings: Mapping[str, bytes]
    parameters: Mapping[str, bytes]
    whole: bool = False
    body: Sequence[bytes] = ()
    tables: Sequence[ExternalTable] = ()
    tag: str = field(default_factory=lambda: secrets.token_hex(16))


class Engine:
    """The engine on a folder, and its connections, each with the role of one of ``users``; one in a process."""

    def __init__(self, folder: Path, users: Iterable[str], room_is_back: Callable[[], object] = lambda: None) -> None:
        """``room_is_back`` is called in a thread, after the disk was full: a new start is due.

        :raises WattStreamError: where the engine can't open its files; it prints itself which, and why.
        """
        data, config, roles = folder / ENGINE, folder / "config.xml", folder / "users.xml"
        roles.write_text(access.users_xml(users))
        config.write_text(_CONFIG.format(users=roles, kept_free=KEPT_FREE_BYTES))
        _chdb.set_signal_handlers_enabled(False)  # stopping is the server's business
        self.room = Room.of(folder)
        self._place = f"{data}?config-file={config}"
        # The engine keeps no metadata of its system tables: their data of an earlier run would be an orphan.
        shutil.rmtree(data / "data" / "system", ignore_errors=True)
        self._lock = threading.Lock()
        self.room.watch(self._stop_background, room_is_back)  # from before it opens its tables, which it merges at once
        # The last connection to close stops the engine.
        try:
            self._first = _chdb.connect(self._place)
        except RuntimeError as error:
            raise WattStreamError(
                f"ClickHouse can't open its tables in {data}; the lines above say which file is damaged. "
                "Bring back a backup (`wattstream restore FROM --replace`), or move that folder away: the next start "
                "fills new tables from the log, as far back as it reaches."
            ) from error
        _forbid_function_file()
        self._run(f"SET ROLE {access.SERVER_ROLE}")
        self._run(f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic")
        self._run("SYSTEM FLUSH LOGS")  # makes the table system.query_log
        rows = self._run("SELECT version(), timezone(), displayName()").decode().rstrip("\n").split("\t")
        self.version, self.timezone, self.display_name = rows

    def connect(self, user: str) -> "Connection":
        """A connection with the user's role."""
        return Connection(_chdb.connect(self._place), user, self.room)

    def kill(self, tag: str) -> None:
        """Ask the statement of that job to stop."""
        self._run(f"KILL QUERY WHERE Settings['{_TAG}'] = '{tag}' ASYNC")

    def _stop_background(self) -> None:
        """Until the next start: what a merge reads of the parts that a full disk left are defaults, which it writes.

        And what was merged into such a part must not be removed: it is all that there is of those rows.
        """
        self._run("SYSTEM STOP MERGES")
        self._run("SYSTEM STOP CLEANUP")

    def close(self) -> None:
        """Stop the engine, once its last connection is closed."""
        self._first.close()

    def _run(self, sql: str) -> bytes:
        with self._lock:
            return self._first.query(sql, "TabSeparated").bytes()


class Connection:
    """A connection with the role of one user; a session keeps it over several requests."""

    def __init__(self, raw: Any, user: str, room: Room) -> None:
        self.raw = raw
        self.user = user
        self.room = room
        self._select(f"SET ROLE {user}")
        self._started = False
        self._home = access.HOME[user]  # of a query that names no database: what USE said
        self._database = ""

    def prepare(self, job: Job) -> None:
        """Apply database, settings and parameters of a request; :raises RuntimeError: of the engine (code 81, 115)."""
        if (wanted := job.database or self._home) != self._database:
            self._select("USE " + _quote_identifier(wanted))
            self._database = wanted
        settings = {"log_queries": b"1", **access.DEFAULTS[self.user]} if not self._started else {}
        settings |= {_TAG: job.tag.encode(), **job.settings}
        self._started = True
        values = [(name.encode(), value) for name, value in settings.items() if name != "readonly"]
        values += [(b"param_" + name.encode(), value) for name, value in job.parameters.items()]
        if "readonly" in settings:
            values.append((b"readonly", settings["readonly"]))
        for name, _ in values:
            if not _IDENTIFIER.match(name.decode()):
                raise ClickHouseError(115, f"Unknown setting '{name.decode()}'.", "UNKNOWN_SETTING")
        self._select(b"SET " + b", ".join(name + b" = " + quote(value) for name, value in values))

    def stay(self) -> None:
        """Take the database of a USE that was run for that of queries to come."""
        self._home = self._database = bytes.fromhex(self._select("SELECT hex(currentDatabase())").decode()).decode()

    def values(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """The settings' values as the session has them; None for one at its default."""
        listed = b", ".join(quote(name.encode()) for name in names)
        text = self._select(
            b"SELECT name, if(changed, hex(value), 'DEFAULT') FROM system.settings WHERE name IN (" + listed + b")"
        )
        pairs = (line.split("\t") for line in text.decode().splitlines())
        return {name: None if value == "DEFAULT" else bytes.fromhex(value) for name, value in pairs}

    def restore(self, values: Mapping[str, bytes | None]) -> None:
        """Put settings back to what `values` said."""
        if values:
            parts = (
                name.encode() + b" = " + (b"DEFAULT" if value is None else quote(value))
                for name, value in values.items()
            )
            self._select(b"SET " + b", ".join(parts))

    def close(self) -> None:
        """Give the connection back; its temporary tables go with it."""
        self.raw.close()

    def insert(self, sql: bytes, read_format: str, body: Iterable[bytes]) -> Any:
        """Run an INSERT with the data of ``body``."""
        handle = self.raw.send_insert(sql, read_format)
        try:
            for chunk in body:
                self.raw.insert_append(handle, chunk)
        except BaseException:
            with contextlib.suppress(RuntimeError):
                self.raw.insert_cancel(handle)
            raise
        return self.raw.insert_done(handle)

    def _select(self, sql: str | bytes) -> bytes:
        return self.raw.query(sql, "TabSeparated").bytes()


class Run:
    """One job on one connection: `start` gives its first bytes, `more` the rest while not `finished`."""

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self._raw = connection.raw
        self._job = job
        self._stream: Any = None
        self._splice: ArrowSplice | None = None
        self._made: list[str] = []
        self.summary = Summary()
        self.finished = False

    def start(self) -> bytes:
        """Run to the first bytes of the result, to the end where it isn't streamed."""
        if not self._job.statement.writes:
            return self._first_bytes()
        # Before it, too: a definition is lost by the attempt.
        self._connection.room.require()
        try:
            return self._first_bytes()
        finally:  # in place of what the engine says of a full disk, where it does
            self._connection.room.require()

    def _first_bytes(self) -> bytes:
        job, statement = self._job, self._job.statement
        for table in job.tables:
            self._load(table.name, table.structure.encode(), table.format, [table.data])
        if statement.data is not None:
            self._insert()
            return b""
        if not statement.selects or job.format not in _STREAMED or job.whole or statement.totals:
            return self._whole()
        self._stream = self._raw.send_query(statement.sql, job.format)
        self._splice = ArrowSplice() if job.format == "ArrowStream" else None
        first = self.more()
        if self.finished and not first:
            # An empty result streams nothing, but some formats say its columns.
            return self._whole()
        if not self.finished:
            # Most results are one block: asking at once for the next saves a turn through the event loop.
            first += self.more()
        return first

    def more(self) -> bytes:
        """The next bytes of a streamed result; may be empty when it is `finished`."""
        result = self._raw.streaming_fetch_result(self._stream)
        chunk = result.bytes()
        if not chunk:
            self._stream = None
            self._finish()
            return self._splice.end() if self._splice else b""
        self.summary.take(result)
        return self._splice.add(chunk) if self._splice else chunk

    def stop(self) -> None:
        """Leave a result that nobody reads."""
        if self._stream is not None:
            with contextlib.suppress(RuntimeError):
                self._raw.streaming_cancel_query(self._stream)
            self._stream = None
        self._finish()

    def _whole(self) -> bytes:
        result = self._raw.query(self._job.statement.sql, self._job.format)
        self.summary.take(result)
        if self._job.statement.keyword == b"USE":
            self._connection.stay()
        self._finish()
        return result.bytes()

    def _insert(self) -> None:
        job, statement = self._job, self._job.statement
        if statement.input is None:
            self.summary.take(self._connection.insert(statement.sql, job.format, job.body))
            self._finish()
            return
        # chdb has no input(): the body becomes a temporary table of this connection, and the statement, which carries
        # the fence, runs over it at once. No right to read files is needed, and the body is never written anywhere.
        call = statement.input
        name = f"_input_{job.tag}"
        self._raw.query(
            b"SET " + b", ".join(k.encode() + b" = " + v for k, v in INPUT_SETTINGS.items() if k not in job.settings),
            "Null",
        )
        self._load(name, unquote(call.structure), job.format, job.body)
        sql = statement.sql[: call.start] + name.encode() + statement.sql[call.end :]
        self.summary.take(self._raw.query(sql, "Null"))
        self._finish()

    def _load(self, name: str, structure: bytes, read_format: str, body: Iterable[bytes]) -> None:
        quoted = _quote_identifier(name)
        self._raw.query(f"CREATE TEMPORARY TABLE {quoted} (".encode() + structure + b") ENGINE = Memory", "Null")
        self._made.append(quoted)
        self._connection.insert(f"INSERT INTO {quoted}".encode(), read_format, body)

    def _finish(self) -> None:
        self.finished = True
        for quoted in self._made:
            with contextlib.suppress(RuntimeError):
                self._raw.query(f"DROP TEMPORARY TABLE IF EXISTS {quoted}", "Null")
        self._made.clear()


def quote(value: bytes) -> bytes:
    """A string literal of SQL."""
    return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


def unquote(literal: bytes) -> bytes:
    """The content of a string literal that holds no control characters."""
    return re.sub(rb"\\(.)|''", lambda match: match[1] or b"'", literal[1:-1], flags=re.DOTALL)


def _quote_identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _forbid_function_file() -> None:
    """Replace the function file(), which reads any file for any role, by one that refuses."""

    def refused(path: str) -> str:
        raise PermissionError(f"file({path!r}) is refused: nobody reads files here")

    _chdb.create_function("file", refused, ["String"], "String")
