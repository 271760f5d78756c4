"""The embedded ClickHouse server: ClickHouse's HTTP interface over chdb, in this process.

``python -m pipelines.local.clickhouse --path DIR --port N [--host 127.0.0.1] [--secrets FILE]`` serves until SIGTERM.

A query whose client leaves is cancelled. An INSERT is run once its whole body is here and then goes on to its end,
whether the client stays or not: what is written is one answer to that, system.processes (Settings['log_comment'])
is the other. A body that doesn't arrive whole is never run.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import uvloop

from pipelines.local import access
from pipelines.local import clickhouse_protocol as protocol
from pipelines.local.clickhouse_engine import Connection, Engine, Job, Run
from pipelines.local.clickhouse_errors import ClickHouseError, describe, status_of
from pipelines.local.clickhouse_protocol import Request
from pipelines.local.clickhouse_session import Session, Sessions
from pipelines.local.clickhouse_statement import parse
from pipelines.local.confinement import confine
from pipelines.local.processes import require_free_port
from schemas.errors import WattStreamError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

BODY_LIMIT_BYTES = 512 * 1024 * 1024
_KEEP_ALIVE_SECONDS = 75
_STOP_SECONDS = 2
_READING_METHODS = frozenset(["GET", "HEAD"])


class ClickHouseServer:
    """The ASGI application.

    Statements wait for one of `limit` places, the writer's apart from the others', so that dashboards hold up no insert.
    """

    def __init__(
        self,
        engine: Engine,
        passwords: dict[str, str],
        host: str = "127.0.0.1",
        body_limit: int = BODY_LIMIT_BYTES,
        limit: int = 2 * (os.cpu_count() or 1),
    ) -> None:
        self._engine = engine
        self._passwords = passwords
        self._hosts = {"127.0.0.1", "localhost", "[::1]", host}
        self._body_limit = body_limit
        self._bytes_free = 2 * body_limit
        self._sessions = Sessions()
        self._lanes = {"writer": asyncio.Semaphore(limit)}
        self._shared_lane = asyncio.Semaphore(limit)
        self._threads = ThreadPoolExecutor(2 * limit + 1, thread_name_prefix="clickhouse")
        self._running: set[str] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request.of(scope)
        reply = Reply(send, self._engine, request)
        try:
            if not self._known_host(request):
                raise ClickHouseError(497, f"Host {request.header(b'host')!r} is not served here", "ACCESS_DENIED")
            if request.path in {"/ping", "/replicas_status"}:
                await reply.whole(b"Ok.\n")
            elif request.path == "/":
                await self._query(request, receive, reply)
            else:
                await reply.text(404, f"There is no handle {request.path}\n")
        except ClickHouseError as error:
            await reply.error(error)

    async def cancel(self) -> None:
        """Cancel all that runs."""
        for tag in list(self._running):
            await self._thread(self._engine.kill, tag)

    async def close(self) -> None:
        """Close the sessions, once nothing runs any more."""
        for connection in self._sessions.all():
            await self._thread(connection.close)

    def _known_host(self, request: Request) -> bool:
        # A page that rebinds its name to loopback still says its own name here.
        name = request.header(b"host")
        name = name if name.endswith("]") else name.rpartition(":")[0] or name
        return name.lower() in self._hosts

    async def _query(self, request: Request, receive: Receive, reply: "Reply") -> None:
        user, password = request.credentials()
        access.authenticate(self._passwords, user, password)
        if request.text("role") not in {"", user}:
            raise ClickHouseError(512, f"Role {request.text('role')} should be granted", "SET_NON_GRANTED_ROLE")
        if request.flag("compress") or request.flag("decompress"):
            raise ClickHouseError(
                48,
                "compress and decompress (LZ4 blocks) are not done here; gzip, zstd, lz4 by HTTP are",
                "NOT_IMPLEMENTED",
            )
        body, taken = await self._body(request, receive)
        try:
            gone = asyncio.ensure_future(_left(receive))
            try:
                await self._statement(request, user, body, gone, reply)
            finally:
                gone.cancel()
        finally:
            self._bytes_free += taken

    async def _body(self, request: Request, receive: Receive) -> tuple[list[bytes], int]:
        """(the chunks of the body as they came, their bytes taken from the budget)."""
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClickHouseError(210, "The client left before its body was whole", "NETWORK_ERROR")
                if chunk := message.get("body", b""):
                    size += len(chunk)
                    self._bytes_free -= len(chunk)
                    if size > self._body_limit:
                        raise protocol.too_large(self._body_limit)
                    if self._bytes_free < 0:
                        raise ClickHouseError(202, "Too many bodies at once", "TOO_MANY_SIMULTANEOUS_QUERIES")
                    chunks.append(chunk)
                if not message.get("more_body"):
                    return chunks, size
        except BaseException:
            self._bytes_free += size
            raise

    async def _statement(
        self, request: Request, user: str, body: list[bytes], gone: "asyncio.Future[None]", reply: "Reply"
    ) -> None:
        encoding = request.header(b"content-encoding").lower()
        if encoding:
            body = await self._thread(protocol.decompress, body, encoding, self._body_limit)
        if request.take_form(body):
            body = []
        job = await self._thread(_job, request, user, body)
        if job.statement.sql.strip().rstrip(b";") == protocol.GREETING and job.format == "Native":
            revision = request.text("client_protocol_version")
            if revision.isdigit() and int(revision):
                engine = self._engine
                answer = protocol.greeting(engine.display_name, engine.version, engine.timezone, int(revision))
                reply.format = "Native"
                await reply.whole(answer)
                return
        session = None
        if name := request.text("session_id"):
            session = self._sessions.take(user, name, request.text("session_timeout"), request.flag("session_check"))
        execution = Execution(self._engine, job, session)
        lane = self._lanes.get(user, self._shared_lane)

        async def step(function: Callable[[], T]) -> T:
            async with lane:
                self._running.add(job.tag)
                try:
                    return await self._watched(function, job, gone)
                finally:
                    self._running.discard(job.tag)

        async def finish() -> None:
            await self._thread(execution.finish)
            if session is not None:
                ended = self._sessions.release(session, request.flag("close_session"))
                if ended is not None:
                    await self._thread(ended.close)

        finished = False
        try:
            first = await step(execution.start)
            reply.format = job.format if execution.has_result else None
            reply.summary = execution.run.summary
            while execution.run.finished is False and not gone.done():
                await reply.begin_with(first)
                first = await step(execution.run.more)
            finished = True
            # Before the last byte leaves: the client's next request may come at once.
            await finish()
            await reply.whole(first)
        except RuntimeError as error:
            if not finished:
                finished = True
                await finish()
            await reply.error(error)
        finally:
            if not finished:
                await finish()
        for connection in self._sessions.expired():
            await self._thread(connection.close)

    async def _watched(self, function: Callable[[], T], job: Job, gone: "asyncio.Future[None]") -> T:
        """Run it in a thread; a query whose client leaves is cancelled, an INSERT goes on."""
        work = asyncio.ensure_future(self._thread(function))
        if not job.statement.insert:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._thread(self._engine.kill, job.tag)
        return await asyncio.shield(work)

    async def _thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


class Execution:
    """A job on its connection, from SET ROLE to giving the connection back; called in threads."""

    def __init__(self, engine: Engine, job: Job, session: Session | None) -> None:
        self._engine = engine
        self._job = job
        self._session = session
        self._connection: Connection | None = None
        self._before: dict[str, bytes | None] = {}
        self.has_result = False
        self.run: Run

    def start(self) -> bytes:
        """Connect, prepare, check and run to the first bytes."""
        job, session = self._job, self._session
        connection = session.connection if session else None
        if connection is None:
            connection = self._engine.connect(job.user)
            if session:
                session.connection = connection
        self._connection = connection
        self.run = Run(connection, job)
        facts = connection.raw.classify_query(job.statement.sql)
        access.refuse_class(job.statement, facts)
        self.has_result = "READ_ONLY" in str(facts["query_class"]) or job.statement.keyword in {b"KILL", b"CHECK"}
        if session and job.settings:
            self._before = connection.values(job.settings)
        connection.prepare(job)
        return self.run.start()

    def finish(self) -> None:
        """Give the connection back; a session keeps it, with its own settings as they were."""
        if self._connection is None:
            return
        with contextlib.suppress(RuntimeError):
            self.run.stop()
            if self._session:
                self._connection.restore(self._before)
        if not self._session:
            self._connection.close()


class Reply:
    """One reply: whole, or begun with the first block and ended later; errors in either state."""

    def __init__(self, send: Send, engine: Engine, request: Request) -> None:
        self._send = send
        self._engine = engine
        self._head_only = request.method == "HEAD"
        self._compressor = protocol.compressor(request)
        self._query_id = request.text("query_id") or secrets.token_hex(16)
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
            data = self._packed(protocol.trailer(self._tag, text), last=True)
            await self._send({"type": "http.response.body", "body": data})
            return
        await self.text(status_of(code), text + "\n", [(b"x-clickhouse-exception-code", str(code).encode())])

    async def text(self, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Send a text that is no result."""
        data = text.encode()
        self._compressor = None
        await self._head(status, len(data), extra=headers or [])
        await self._send({"type": "http.response.body", "body": b"" if self._head_only else data})

    async def _head(
        self, status: int, length: int | None, packed: bool = True, extra: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        headers = [
            (b"content-type", protocol.content_type(self.format or "").encode()),
            (b"x-clickhouse-server-display-name", self._engine.display_name.encode()),
            (b"x-clickhouse-query-id", self._query_id.encode("latin-1", "replace")),
            (b"x-clickhouse-timezone", self._engine.timezone.encode()),
            (b"x-clickhouse-exception-tag", self._tag.encode()),
            *(extra or []),
        ]
        if self.format:
            headers.append((b"x-clickhouse-format", self.format.encode()))
        if self.summary is not None:
            headers.append((b"x-clickhouse-summary", protocol.summary_json(self.summary)))
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


def _job(request: Request, user: str, body: list[bytes]) -> Job:
    """Read the statement out of the parameters and the body, and refuse what isn't allowed."""
    head = request.params.get("query", b"")
    if head:
        text, rest = head + b"\n", body
    else:
        text, rest = _head(body), body
    statement = parse(text)
    if statement.data is None and body:
        # Not an INSERT with data: all of it is the statement.
        text, rest = (head + b"\n" if head else b"") + b"".join(body), []
        statement = parse(text)
    data: list[bytes] = []
    if statement.data is not None:
        inline = text[statement.data :]
        data = [inline, *_skip(rest, len(text) if not head else 0)] if inline.strip() or not head else rest
    access.refuse(user, statement, request.text("database"))
    settings = request.settings()
    for name, value in settings.items():
        access.refuse_setting(user, name, value)
    if request.method in _READING_METHODS:
        settings.setdefault("readonly", b"2")
    return Job(
        statement=statement,
        format=statement.format or request.format(),
        user=user,
        database=request.text("database") or None,
        settings=settings,
        parameters=request.parameters(),
        whole=request.flag("wait_end_of_query"),
        body=data,
        tables=request.tables,
    )


_HEAD_BYTES = 64 * 1024


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


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def hold(folder: Path) -> int:
    """Lock the folder for this process; the kernel frees it when the process ends, however it ends.

    :raises WattStreamError: naming the process that holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 20).decode().strip() or "unknown"
        os.close(descriptor)
        raise WattStreamError(
            f"ClickHouse's folder {folder} is in use by process {owner}. Stop that one, or take another folder."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


async def serve(folder: Path, host: str, port: int, passwords: dict[str, str], body_limit: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    engine = Engine(folder)
    application = ClickHouseServer(engine, passwords, host, body_limit)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises it once more when it has stopped
    await _Server(config, application).serve()
    await application.close()
    engine.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, application: ClickHouseServer) -> None:
        super().__init__(config)
        self._application = application

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._application.cancel()
        await super().shutdown(sockets)


def main() -> int:
    """The command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.local.clickhouse", description="Embedded ClickHouse.")
    parser.add_argument("--path", type=Path, required=True, help="folder of the data")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--secrets", type=Path, help="JSON of user to password (default: PATH/../secrets.json)")
    parser.add_argument("--body-limit", type=int, default=BODY_LIMIT_BYTES, help="largest body of a request, bytes")
    given = parser.parse_args()
    folder = given.path.resolve()
    try:
        passwords = access.load_passwords(given.secrets or folder.parent / "secrets.json")
        lock = hold(folder)
        require_free_port(given.port, "ClickHouse")
    except WattStreamError as error:
        print(error, file=sys.stderr)
        return 1
    if not confine(folder):
        print("The kernel has no Landlock: only the server's own rules keep queries from files.", file=sys.stderr)
    uvloop.run(serve(folder, given.host, given.port, passwords, given.body_limit))
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
