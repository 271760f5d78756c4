"""A reply of ClickHouse's HTTP interface: headers, compression, streams and errors, also in mid-stream."""

import json
import re
import secrets
import uuid
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import lz4.frame
import zstandard

from pipelines.local.clickhouse_engine import Engine, Job, Summary
from pipelines.local.clickhouse_errors import describe, status_of
from pipelines.local.clickhouse_request import Request

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "RowBinary": "application/octet-stream",
}


class Compressor(Protocol):
    """What zlib's, zstandard's and our lz4 compressors have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """What can be sent after taking in `data`."""
        ...

    def flush(self) -> bytes:
        """The rest, and the end mark."""
        ...


class Reply:
    """One reply: whole, or begun with the first block and ended later; errors in either state."""

    def __init__(self, send: Send, engine: Engine, request: Request) -> None:
        self._send = send
        self._engine = engine
        self._head_only = request.method == "HEAD"
        self._compressor = _compressor(request)
        self._progress = request.flag("send_progress_in_http_headers")
        # Into a header: without line ends, which would begin another one.
        self._query_id = re.sub(r"[^ -~]", "?", request.text("query_id")) or str(uuid.uuid4())
        self._tag = secrets.token_urlsafe(12)
        self._begun = False
        self.format: str | None = None
        self.summary: Any = None

    async def begin_with(self, chunk: bytes) -> None:
        """Send a part of a streamed result; more follows."""
        if not self._begun:
            await self._head(200, None)
        if data := self._packed(chunk, last=False):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def whole(self, chunk: bytes) -> None:
        """Send the end of a result, or all of it."""
        data = self._packed(chunk, last=True) if chunk or self._begun else b""
        if not self._begun:
            await self._head(200, len(data), packed=bool(chunk))
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else data})

    async def error(self, error: BaseException) -> None:
        """Send an error: as the reply, or as the trailer of one that has begun."""
        code, text = describe(error, self._engine.version)
        if self._begun:
            data = self._packed(_trailer(self._tag, text), last=True)
            await self._send({"type": "http.response.body", "body": data})
            return
        await self.text(status_of(code), text + "\n", [(b"x-clickhouse-exception-code", str(code).encode())])

    async def text(self, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Send a text that is no result."""
        data = text.encode()
        self._compressor = self.format = None
        await self._head(status, len(data), extra=headers or [])
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else data})

    async def _head(
        self, status: int, length: int | None, packed: bool = True, extra: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        headers = [
            (b"content-type", _content_type(self.format or "").encode()),
            (b"x-clickhouse-server-display-name", self._engine.display_name.encode()),
            (b"x-clickhouse-query-id", self._query_id.encode()),
            (b"x-clickhouse-timezone", self._engine.timezone.encode()),
            (b"x-clickhouse-exception-tag", self._tag.encode()),
            *(extra or []),
        ]
        if self.format:
            headers.append((b"x-clickhouse-format", self.format.encode()))
        if self.summary is not None:
            counts = _summary_json(self.summary)
            headers.append((b"x-clickhouse-summary", counts))
            if self._progress:
                headers.append((b"x-clickhouse-progress", counts))
        if self._compressor and packed:
            headers.append((b"content-encoding", self._compressor[0].encode()))
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self._begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _packed(self, data: bytes, last: bool) -> bytes:
        if self._compressor is None:
            return data
        compress = self._compressor[1]
        return compress.compress(data) + (compress.flush() if last else b"")


def _compressor(request: Request) -> tuple[str, Compressor] | None:
    """(Content-Encoding, compressor) that the client takes and asked for by enable_http_compression=1."""
    if not request.flag("enable_http_compression"):
        return None
    accepted = {part.split(";")[0].strip() for part in request.header(b"accept-encoding").lower().split(",")}
    if "zstd" in accepted:
        return "zstd", zstandard.ZstdCompressor(level=1).compressobj()
    if "lz4" in accepted:
        return "lz4", _Lz4()
    if "gzip" in accepted:
        return "gzip", zlib.compressobj(3, wbits=31)
    if "deflate" in accepted:
        return "deflate", zlib.compressobj(3)
    return None


class _Lz4:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._head = self._frame.begin()

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        return head + self._frame.compress(data)

    def flush(self) -> bytes:
        head, self._head = self._head, b""
        return head + self._frame.flush()


def _summary_json(summary: Summary) -> bytes:
    """The X-ClickHouse-Summary header: counts as strings, as ClickHouse has them."""
    return json.dumps(
        {name: str(value) for name, value in vars(summary).items()} | {"total_rows_to_read": "0"}
    ).encode()


def _content_type(name: str) -> str:
    """The media type of a format."""
    return _CONTENT_TYPES.get(name, "text/plain; charset=UTF-8")


def _trailer(tag: str, message: str) -> bytes:
    """How an error ends a reply that has begun."""
    text = message.encode() + b"\n"
    mark = tag.encode()
    return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (mark, text, len(text), mark)


_GREETING = b"SELECT displayName(), version(), revision(), timezone()"
_CUSTOM_SERIALIZATION = 54454


def greeting(request: Request, job: Job, engine: Engine) -> bytes:
    """The answer to clickhouse-go's first query, framed as for the client's own revision; empty for any other query.

    It says revision 0, so that the client reads all that follows as plain Native, which is what the engine gives.
    """
    revision = request.text("client_protocol_version")
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", revision) or job.format != "Native":
        return b""
    if job.statement.sql.strip().rstrip(b";") != _GREETING:
        return b""
    columns = [
        ("displayName()", "String", _string(engine.display_name)),
        ("version()", "String", _string(engine.version)),
        ("revision()", "UInt32", (0).to_bytes(4, "little")),
        ("timezone()", "String", _string(engine.timezone)),
    ]
    # Block info: field 1 is_overflows = 0, field 2 bucket = -1, end; then the counts of columns and rows.
    block = b"\x01\x00\x02\xff\xff\xff\xff\x00" + bytes([len(columns), 1])
    plain = b"\x00" if int(revision) >= _CUSTOM_SERIALIZATION else b""
    return block + b"".join(_string(name) + _string(kind) + plain + value for name, kind, value in columns)


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) > 127:
        raise ValueError("A name longer than one length byte tells.")
    return bytes([len(data)]) + data
