"""A request of ClickHouse's HTTP interface: parameters, credentials, forms, a compressed body, and the job in it."""

import base64
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import lz4.frame
import zstandard

from pipelines.local import access
from pipelines.local.clickhouse_engine import ExternalTable, Job
from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_statement import parse

# Parameters of the interface itself; all others are settings.
_INTERFACE = frozenset(
    [
        "database",
        "user",
        "password",
        "query",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "default_format",
        "output_format",
        "wait_end_of_query",
        "buffer_size",
        "compress",
        "decompress",
        "quota_key",
        "stacktrace",
        "role",
        "client_protocol_version",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "http_zlib_compression_level",
        "add_http_cors_header",
        "cancel_http_readonly_queries_on_client_close",
    ]
)
_READING_METHODS = frozenset(["GET", "HEAD"])
_HEAD_BYTES = 64 * 1024
_STATEMENT_BYTES = 1024 * 1024  # four times what the engine takes without being told; 0.5 s to read at worst


@dataclass
class Request:
    """One request: its head taken apart; the body comes later."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    params: dict[str, bytes]
    tables: list[ExternalTable] = field(default_factory=list)

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> "Request":
        """Take an ASGI scope apart."""
        return cls(scope["method"], scope["path"], dict(scope["headers"]), form_values(scope["query_string"]))

    def header(self, name: bytes) -> str:
        """A header's value, empty without it."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def text(self, name: str) -> str:
        """A parameter as text, empty without it."""
        return self.params.get(name, b"").decode(errors="replace")

    def database(self) -> str:
        """The database that the request names, empty without."""
        return self.text("database") or self.header(b"x-clickhouse-database")

    def flag(self, name: str) -> bool:
        """Whether a parameter says yes."""
        return self.text(name).lower() in {"1", "true", "yes", "on"}

    def credentials(self) -> tuple[str, str]:
        """(user, password) of the Authorization or X-ClickHouse headers or the parameters.

        :raises ClickHouseError: 193 for what can't be read, 516 without any.
        """
        given = self.header(b"authorization")
        if given:
            kind, _, coded = given.partition(" ")
            if kind.lower() != "basic":
                raise ClickHouseError(193, f"Authorization {kind!r} is not done here, only Basic", "WRONG_PASSWORD")
            try:
                user, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
            except ValueError:  # no Base64, or no text in it
                raise ClickHouseError(193, "The Authorization header can't be read", "WRONG_PASSWORD") from None
            return user, password
        if b"x-clickhouse-user" in self.headers:
            return self.header(b"x-clickhouse-user"), self.header(b"x-clickhouse-key")
        if "user" in self.params:
            return self.text("user"), self.text("password")
        raise ClickHouseError(
            516, "Authentication failed: give a user and password (users: writer, planner, viewer)", "REQUIRED_PASSWORD"
        )

    def settings(self) -> dict[str, bytes]:
        """The parameters that are settings of the engine."""
        of_tables = {f"{table.name}_{part}" for table in self.tables for part in ("structure", "types", "format")}
        return {
            name: value
            for name, value in self.params.items()
            if name not in _INTERFACE and not name.startswith("param_") and name not in of_tables
        }

    def parameters(self) -> dict[str, bytes]:
        """The values of the query's own parameters, {name:Type}."""
        return {name.removeprefix("param_"): value for name, value in self.params.items() if name.startswith("param_")}

    def format(self) -> str:
        """The format for a query that names none."""
        return self.text("default_format") or self.header(b"x-clickhouse-format") or "TabSeparated"

    def take_form(self, body: Sequence[bytes]) -> bool:
        """Read the body if it is a form: its fields become parameters, its files tables. False if it is no form."""
        kind = self.header(b"content-type")
        if kind.startswith("multipart/form-data"):
            boundary = re.search(r'boundary="?([^";]+)"?', kind)
            if boundary is None:
                raise ClickHouseError(36, "A multipart body needs a boundary", "BAD_ARGUMENTS")
            for name, file, value in _parts(b"".join(body), boundary[1].encode()):
                if file is None:
                    self.params[name] = value
                else:
                    self._take_table(name, value)
            return True
        if kind.startswith("application/x-www-form-urlencoded") and _is_form(body):
            self.params |= form_values(b"".join(body))
            return True
        return False

    def _take_table(self, name: str, data: bytes) -> None:
        structure = self.text(f"{name}_structure")
        if not structure:
            types = [part for part in self.text(f"{name}_types").split(",") if part]
            if not types:
                raise ClickHouseError(36, f"Neither {name}_structure nor {name}_types is given", "BAD_ARGUMENTS")
            structure = ", ".join(f"_{number} {kind}" for number, kind in enumerate(types, 1))
        self.tables.append(ExternalTable(name, structure, self.text(f"{name}_format") or "TabSeparated", data))


def form_values(text: bytes) -> dict[str, bytes]:
    """The fields of an URL's query or a form; values are bytes, for a parameter may hold any."""
    pairs = (pair.replace(b"+", b" ").partition(b"=") for pair in text.split(b"&") if pair)
    return {unquote_to_bytes(name).decode(errors="replace"): unquote_to_bytes(value) for name, _, value in pairs}


def _is_form(body: Sequence[bytes]) -> bool:
    # curl -d sends SQL under the content type of a form.
    head = b"".join(body)[:4096].lstrip()
    return re.match(rb"(?:query|param_\w+|database|user|default_format)=", head) is not None


def _parts(body: bytes, boundary: bytes) -> list[tuple[str, str | None, bytes]]:
    found: list[tuple[str, str | None, bytes]] = []
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        if part.startswith(b"--"):
            break
        head, _, value = part.partition(b"\r\n\r\n")
        disposition = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disp")), b"")
        name = re.search(rb'[; ]name="([^"]*)"', disposition)
        file = re.search(rb'filename="([^"]*)"', disposition)
        if name is None:
            raise ClickHouseError(36, "A part of the multipart body has no name", "BAD_ARGUMENTS")
        found.append((name[1].decode(errors="replace"), file[1].decode(errors="replace") if file else None, value))
    return found


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def decompress(body: Sequence[bytes], encoding: str, limit: int) -> list[bytes]:
    """The body without its Content-Encoding.

    :raises ClickHouseError: 48 for an encoding not done here, 307 past `limit` bytes, 354 for a damaged one.
    """
    if encoding in {"", "identity"}:
        return list(body)
    raw = io.BufferedReader(_Chunks(body), 1 << 18)
    if encoding == "gzip":
        reader: Any = gzip.GzipFile(fileobj=raw)
    elif encoding == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    elif encoding == "lz4":
        reader = lz4.frame.LZ4FrameFile(raw)
    else:
        raise ClickHouseError(48, f"Content-Encoding {encoding!r}: only gzip, zstd, lz4 are done", "NOT_IMPLEMENTED")
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := reader.read(1 << 20):
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            chunks.append(chunk)
    except (OSError, EOFError, RuntimeError, zlib.error, zstandard.ZstdError) as error:
        raise ClickHouseError(354, f"The {encoding} body is damaged: {error}", "ZLIB_INFLATE_FAILED") from error
    return chunks


def too_large(limit: int) -> ClickHouseError:
    """The refusal of a body past the cap."""
    return ClickHouseError(307, f"The body is larger than {limit} bytes; send it in parts", "TOO_MANY_BYTES")


def read_job(request: Request, user: str, body: list[bytes]) -> Job:
    """Read the statement out of the parameters and the body, and refuse what isn't allowed."""
    head = request.params.get("query", b"")
    if head:
        text, rest = head + b"\n", body
    else:
        text, rest = _head(body), body
    statement = parse(text)
    cut = not head and len(text) < sum(map(len, body)) and (statement.data or 0) >= len(text) - 1
    if (statement.data is None and body) or cut:
        # Not an INSERT with data, or one whose statement is longer than the head: all of it is read.
        if sum(map(len, body)) > _STATEMENT_BYTES:
            raise ClickHouseError(62, f"Syntax error: a statement longer than {_STATEMENT_BYTES} bytes", "SYNTAX_ERROR")
        text, rest = (head + b"\n" if head else b"") + b"".join(body), []
        statement = parse(text)
    data: list[bytes] = []
    if statement.data is not None:
        inline = text[statement.data :]
        data = [inline, *_skip(rest, len(text) if not head else 0)] if inline.strip() or not head else rest
    access.refuse(user, statement, request.database())
    settings = request.settings()
    for name, value in settings.items():
        access.refuse_setting(user, name, value)
    if request.method in _READING_METHODS:
        settings.setdefault("readonly", b"2")
    return Job(
        statement=statement,
        format=statement.format or request.format(),
        user=user,
        database=request.database() or None,
        settings=settings,
        parameters=request.parameters(),
        whole=request.flag("wait_end_of_query"),
        body=data,
        tables=request.tables,
    )


def _head(body: list[bytes]) -> bytes:
    """The beginning of the body, whole chunks, enough to hold the statement of an INSERT."""
    size = count = 0
    while count < len(body) and size < _HEAD_BYTES:
        size += len(body[count])
        count += 1
    return b"".join(body[:count])


def _skip(chunks: list[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
        else:
            yield chunk[count:]
            count = 0
