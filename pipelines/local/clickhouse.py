"""The embedded ClickHouse server: ClickHouse's HTTP interface over chdb, in this process.

``python -m pipelines.local.clickhouse --path DIR --port N [--host 127.0.0.1] [--secrets FILE] [--admin]`` serves until
SIGTERM.

A SELECT whose client leaves is cancelled. An INSERT is run once its whole body is here, and goes on to its end whether
its client stays or not; system.processes (Settings['log_comment']) shows it from before its fence is evaluated until
its rows can be read. An INSERT whose body doesn't arrive whole is never run.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
import uvloop

from pipelines.local import access
from pipelines.local.clickhouse_engine import Engine
from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_folder import ENGINE, hold, remembered, require_whole
from pipelines.local.clickhouse_reply import Reply, Send, greeting
from pipelines.local.clickhouse_request import Request, decompress, read_job, too_large
from pipelines.local.clickhouse_session import Execution, Sessions
from pipelines.local.confinement import confine
from pipelines.local.processes import require_free_port
from schemas.errors import WattStreamError
from schemas.loopback import LOOPBACK, is_named, is_of_another_site

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
T = TypeVar("T")

_log = logging.getLogger("uvicorn.error")

BODY_LIMIT_BYTES = 512 * 1024 * 1024
_PART = re.compile(r"/store/\w{3}/[\w-]{36}/\w+(?=/)")
_MARKS = re.compile(r"[\w.%/-]*\.c?mrk\d?\b")
_KEEP_ALIVE_SECONDS = 75
_STOP_SECONDS = 2
# A mutation that waits for merges, which are stopped after a full disk, would wait for ever, and the end with it.
_LAST_SECONDS = 10


class ClickHouseServer:
    """The ASGI application.

    Statements wait for one of `limit` places; the writer has its own, so that dashboards hold up no insert.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        passwords: dict[str, str],
        host: str = "127.0.0.1",
        body_limit: int = BODY_LIMIT_BYTES,
        limit: int = 2 * (os.cpu_count() or 1),
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._passwords = passwords
        self._hosts = LOOPBACK | {host}
        self._body_limit = body_limit
        self._bytes_free = 2 * body_limit
        self._sessions = Sessions()
        self._lanes = {"writer": asyncio.Semaphore(limit)}
        self._shared_lane = asyncio.Semaphore(limit)
        self._threads = ThreadPoolExecutor(2 * limit + 1, thread_name_prefix="clickhouse")
        self._reading: set[str] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request.of(scope)
        reply = Reply(send, self._engine, request)
        try:
            self._refuse_pages(request)
            if request.path in {"/ping", "/replicas_status"}:
                await reply.whole(b"Ok.\n")
            elif request.path == "/":
                await self._query(request, receive, reply)
            else:
                await reply.text(404, f"There is no handle {request.path}\n")
        except ClickHouseError as error:
            await reply.error(error)
        except Exception as error:
            _log.exception("A request failed in the server itself")
            await reply.error(error)

    async def cancel(self) -> None:
        """Cancel what reads. An insert goes on: one that is killed may be answered as if its rows were written."""
        for tag in list(self._reading):
            await self._thread(self._engine.kill, tag)

    async def close(self) -> None:
        """Close the sessions, once nothing runs any more."""
        for connection in self._sessions.all():
            await self._thread(connection.close)

    def _refuse_pages(self, request: Request) -> None:
        """Refuse what a web page asks through a browser, which may know a password of ours."""
        host = request.header(b"host")
        if not is_named(host, self._hosts):
            raise ClickHouseError(
                497, f"Host {host[:100]!r} is not served here: ask for 127.0.0.1 or localhost", "ACCESS_DENIED"
            )
        if is_of_another_site(request.method, lambda name: request.header(name.encode()), links=False):
            raise ClickHouseError(
                497,
                "A web page of another site asks: here only programs do, and who types the address",
                "ACCESS_DENIED",
            )

    async def _query(self, request: Request, receive: Receive, reply: Reply) -> None:
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
                        raise too_large(self._body_limit)
                    if self._bytes_free < 0:
                        raise ClickHouseError(202, "Too many bodies at once", "TOO_MANY_SIMULTANEOUS_QUERIES")
                    chunks.append(chunk)
                if not message.get("more_body"):
                    return chunks, size
        except BaseException:
            self._bytes_free += size
            raise

    async def _statement(
        self, request: Request, user: str, body: list[bytes], gone: "asyncio.Future[None]", reply: Reply
    ) -> None:
        if encoding := request.header(b"content-encoding").lower():
            body = await self._thread(decompress, body, encoding, self._body_limit)
        if request.take_form(body):
            body = []
        job = await self._thread(read_job, request, user, body)
        reply.format = job.format
        if hello := greeting(request, job, self._engine):
            await reply.whole(hello)
            return
        session = None
        if name := request.text("session_id"):
            session = self._sessions.take(user, name, request.text("session_timeout"), request.flag("session_check"))
        execution = Execution(self._engine, job, session)
        try:
            last = await self._run(execution, gone, reply)
            # Before the last byte leaves: the client's next request may come at once.
            await self._finish(execution, request)
            await reply.whole(last)
        except (RuntimeError, UnicodeDecodeError) as error:  # the latter where the engine's words quote what is no text
            await self._finish(execution, request)
            await reply.error(error)
            self._end_with_a_lost_part(str(error))
        finally:
            await self._finish(execution, request)

    def _end_with_a_lost_part(self, words: str) -> None:
        """End, once for a part, where the engine met one whose files are empty: it sets those aside when it starts.

        As where the disk was full (`clickhouse_room`), here for one that came about otherwise, or unseen.
        """
        found = _PART.search(words)
        if found is None:
            return
        part = self._folder / ENGINE / found[0][1:]
        marks = _MARKS.match(words, found.end() + 1)
        files = [part / "checksums.txt", *([part / marks[0]] if marks else [])]
        with contextlib.suppress(OSError):  # no such file, or the disk is still full: the next query tells it again
            # Any query can say such words: the files say whether they are true.
            if not any(file.resolve().is_relative_to(part) and _is_empty(file) for file in files):
                return
            if remembered(self._folder, str(part)):
                return
            _log.error("%s has empty files: the server ends, so that the part is set aside at its next start", part)
            signal.raise_signal(signal.SIGTERM)

    async def _run(self, execution: Execution, gone: "asyncio.Future[None]", reply: Reply) -> bytes:
        """Run to the last bytes; those before them are sent."""
        chunk = await self._step(execution.start, execution, gone)
        reply.format = execution.job.format if execution.has_result else None
        reply.summary = execution.run.summary
        while not execution.run.finished and not gone.done():
            await reply.begin_with(chunk)
            chunk = await self._step(execution.run.more, execution, gone)
        return chunk

    async def _step(self, function: Callable[[], bytes], execution: Execution, gone: "asyncio.Future[None]") -> bytes:
        """Run in a thread, in a place of the lane. A SELECT whose client leaves is cancelled, all else goes on."""
        job = execution.job
        async with self._lanes.get(job.user, self._shared_lane):
            work = asyncio.ensure_future(self._thread(function))
            if job.statement.selects:
                self._reading.add(job.tag)
            try:
                if job.statement.selects:
                    await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
                    if not work.done():
                        await self._thread(self._engine.kill, job.tag)
                return await asyncio.shield(work)
            finally:
                # Also when this task is cancelled: the connection is in use as long as the thread is.
                await asyncio.wait([work])
                self._reading.discard(job.tag)

    async def _finish(self, execution: Execution, request: Request) -> None:
        if execution.over:
            return
        execution.over = True
        await self._thread(execution.finish)
        ended = self._sessions.expired()
        if execution.session is not None:
            ended += self._sessions.release(execution.session, request.flag("close_session"))
        for connection in ended:
            await self._thread(connection.close)

    async def _thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _is_empty(file: Path) -> bool:
    return file.is_file() and file.stat().st_size == 0


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def serve(folder: Path, host: str, port: int, passwords: dict[str, str], body_limit: int) -> None:
    """Serve until SIGTERM or SIGINT.

    :raises WattStreamError: where the engine can't open its files.
    """
    started = threading.Event()
    engine = Engine(folder, passwords, partial(_end_to_look, started))
    application = ClickHouseServer(engine, folder, passwords, host, body_limit)
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
    server = _Server(config, application, started.set)

    def end(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)  # until uvicorn has its own, which raises it once more when it has stopped
    await server.serve()
    await application.close()
    engine.close()


def _end_to_look(started: threading.Event) -> None:
    started.wait()  # from then on it hears signals
    _log.error("The disk was full: the server ends, so that parts that were lost are set aside at its next start")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_SECONDS)
    os._exit(0)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, application: ClickHouseServer, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._application = application
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._application.cancel()
        await super().shutdown(sockets)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.local.clickhouse", description="Embedded ClickHouse.")
    parser.add_argument("--path", type=Path, required=True, help="folder of the data")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--secrets", type=Path, help="JSON of user to password (default: PATH/../secrets.json)")
    parser.add_argument("--admin", action="store_true", help="let the user admin in, for databases of your own")
    parser.add_argument("--body-limit", type=int, default=BODY_LIMIT_BYTES, help="largest body of a request, bytes")
    given = parser.parse_args(argv)
    folder = given.path.resolve()
    try:
        passwords = access.load_passwords(given.secrets or folder.parent / "secrets.json", given.admin)
        lock = hold(folder)
        require_whole(folder)
        require_free_port(given.port, "ClickHouse")
    except WattStreamError as error:
        print(error, file=sys.stderr)
        return 1
    if not confine(folder):
        print("The kernel has no Landlock: only the server's own rules keep queries from files.", file=sys.stderr)
    try:
        uvloop.run(serve(folder, given.host, given.port, passwords, given.body_limit))
    except WattStreamError as error:
        print(error, file=sys.stderr)
        return 1
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
