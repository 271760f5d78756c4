"""Requests that are hardly valid, to the embedded ClickHouse: no crash, no hang, and no data without a role.

``pytest tests/pipelines/local/test_fuzz_clickhouse.py --fuzz-examples 100000 -rP`` is the long run; see
docs/reliability.md.
"""

import base64
import contextlib
import gzip
import http.client
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import lz4.frame
import pytest
import zstandard
from hypothesis import strategies as st

ROWS = b"rows-of-the-house"  # in a table that all three users may read
FILE = b"words-of-a-file"  # in a file that nobody may
VIEWER = b"v-secret"
OPEN = {b"/ping", b"/replicas_status"}
LONGEST_SECONDS = 60.0  # on the wall, beside other work: the server does it
BOUNDARY = b"multipart/form-data; boundary=b"

READS = [
    b"SELECT s FROM wattstream.house",
    b"SELECT s, a FROM house ORDER BY a LIMIT 2 FORMAT JSONEachRow",
    b"WITH 1 AS x SELECT {n:Int8} + x, 'it''s \\' -- \\n', `a`, \"s\" /* /* nested */ */ FROM house # end\n",
    b"SELECT $tag$ FROM $tag$, \xe2\x80\x98quoted\xe2\x80\x99 FORMAT TSV",
    b"(SELECT a FROM house) UNION ALL (SELECT a FROM house) FORMAT Native",
    b"SELECT a, count() FROM house GROUP BY a WITH TOTALS FORMAT JSON",
    b"SELECT max(s) FROM sent",
    b"EXPLAIN SELECT s FROM house",
    b"DESCRIBE TABLE house",
    b"SET max_threads = 1",
    b"USE wattstream",
]
FORBIDDEN = [
    b"SELECT file('{file}')",
    b"SELECT * FROM file('{file}', 'LineAsString', 'line String')",
    b"SELECT * APPLY /* x */ `file` FROM (SELECT '{file}' AS p)",
    b"SELECT * FROM url('file://{file}', 'LineAsString', 'line String')",
    b"SELECT 1 FORMAT Template SETTINGS format_template_row = '{file}'",
    b"SELECT 'x' INTO/**/OUTFILE '{file}.out'",
    b"INSERT INTO house FROM INFILE '{file}' FORMAT CSV",
    b"INSERT INTO house VALUES ('x', 1)",
    b"INSERT INTO house SELECT s, a FROM input('s String, a Int64') FORMAT TSV\nx\t1\n",
    b"CREATE TEMPORARY TABLE f (line String) ENGINE = File(LineAsString, '{file}')",
    b"SET ROLE writer",
    b"SELECT 1; DROP TABLE house",
    b"SYSTEM SHUTDOWN",
    b"SELECT query FROM system.processes",
]
PIECES = [
    *b"SELECT INSERT INTO FROM house system.processes SET ROLE writer readonly=0 FORMAT Native VALUES SETTINGS".split(),
    *(b"input('a String')", b"'", b'"', b"`", b"\\", b"(", b")", b"/*", b"*/", b"--", b"$a$", b"\0", b"\n", b"\xff"),
    *(b";", b"&", b"=", b"%00", b"%", b"+", b"\xe2\x80\x98", b"{a:String}", b"1e999", b"\r\n--b", b"\r\n\r\n", b"/**/"),
]
PARAMETERS = [
    b"",
    b"database=wattstream&default_format=JSON&param_n=1",
    b"param_n=1&max_threads=1&wait_end_of_query=1&enable_http_compression=1&query_id=q",
    b"session_id=s&session_timeout=5&session_check=0&param_n=1",
    b"readonly=0&role=writer&compress=1",
    b"sent_structure=s%20String&sent_format=TSV",
    b"client_protocol_version=54460&default_format=Native",
    b"user=writer&password=&user=default",
]
HEADERS: list[tuple[bytes, bytes]] = [
    (b"Content-Type", BOUNDARY),
    (b"Content-Type", b"application/x-www-form-urlencoded"),
    (b"Accept-Encoding", b"gzip, zstd;q=0.5, lz4"),
    (b"X-ClickHouse-Format", b"JSONCompact"),
    (b"X-ClickHouse-Database", b"system"),
    (b"Content-Encoding", b"gzip"),
    (b"Content-Encoding", b"zstd"),
    (b"Content-Encoding", b"lz4"),
    (b"Content-Encoding", b"br"),
    (b"Host", b"evil.example"),
    (b"Origin", b"http://["),
    (b"Expect", b"100-continue"),
    (b"Cookie", b"a=b"),
]
BASIC = b"Basic " + base64.b64encode(b"viewer:" + VIEWER)
KNOWN = [[(b"Authorization", BASIC)], [(b"X-ClickHouse-User", b"viewer"), (b"X-ClickHouse-Key", VIEWER)]]
UNKNOWN: list[list[tuple[bytes, bytes]]] = [
    [],
    [(b"Authorization", b"Basic " + base64.b64encode(b"viewer:wrong"))],
    [(b"Authorization", b"Basic " + base64.b64encode(b"viewer"))],
    [(b"Authorization", b"Basic " + base64.b64encode(b"default:"))],
    [(b"Authorization", b"Basic " + base64.b64encode("server:\0é".encode()))],
    [(b"Authorization", b"Basic \xff=")],
    [(b"Authorization", b"Bearer x")],
    [(b"X-ClickHouse-User", b"writer"), (b"X-ClickHouse-Key", b"")],
    [(b"X-ClickHouse-User", "é".encode()), (b"X-ClickHouse-Key", "é".encode())],
]


@dataclass(frozen=True)
class Asked:
    """A request; ``known`` says whether it has the viewer's password."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    known: bool

    @property
    def wire(self) -> bytes:
        """As it is sent: what is inside is hardly valid, where it ends is clear."""
        headers = [(b"Host", b"localhost"), *self.headers, (b"Content-Length", str(len(self.body)).encode())]
        named = dict(headers)  # the last of a name: two of Host or Content-Length are another server's business
        return b"".join(
            [
                b"%b %b HTTP/1.1\r\n" % (self.method, self.target),
                *(b"%b: %b\r\n" % (name, value) for name, value in named.items()),
                b"\r\n",
                self.body,
            ]
        )


def multipart(sql: bytes) -> bytes:
    fields = b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\n%b\r\n' % sql
    table = b'--b\r\nContent-Disposition: form-data; name="sent"; filename="t.tsv"\r\n\r\none\ntwo\n\r\n--b--\r\n'
    return fields + table


def asked(mutated: Callable[..., st.SearchStrategy[bytes]], file: Path) -> st.SearchStrategy[Asked]:
    forbidden = [sql.replace(b"{file}", str(file).encode()) for sql in FORBIDDEN]
    statements = mutated([*READS, *forbidden], PIECES)
    packings = [lambda sql: sql, lambda sql: sql, multipart, lambda sql: b"query=" + quote_from_bytes(sql).encode()]
    packings += [gzip.compress, zstandard.compress, lz4.frame.compress]
    printable = "!$&'()*+,-./:;<=>?@[]^_`{|}~%"

    @st.composite
    def strategy(draw: st.DrawFn) -> Asked:
        body = draw(st.sampled_from(packings))(draw(statements))
        if draw(st.integers(0, 3)) == 0:
            body = draw(mutated([body, b""], PIECES))
        query = draw(mutated(PARAMETERS, PIECES))
        if draw(st.integers(0, 4)) == 0:
            query += b"&query=" + quote_from_bytes(draw(statements)).encode()
        path = draw(st.sampled_from([b"/"] * 12 + [b"/ping", b"/replicas_status", b"/play", b"//", b"/ping/..", b"*"]))
        target = path + b"?" + quote_from_bytes(query, safe=printable).encode() if query else path
        known = draw(st.booleans())
        headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2)) + draw(
            st.sampled_from(KNOWN if known else UNKNOWN)
        )
        method = draw(st.sampled_from([b"POST", b"POST", b"POST", b"GET", b"PUT", b"HEAD", b"OPTIONS"]))
        return Asked(method, target, tuple(headers), body, known)

    return strategy()


@pytest.fixture
def house(clickhouse: Any, tmp_path: Path) -> Iterator[Path]:
    """A table and a file that hold the words which must not come out; gives the file."""
    writer = clickhouse.client()
    writer.command("CREATE OR REPLACE TABLE house (s String, a Int64) ENGINE = MergeTree ORDER BY a")
    writer.command(f"INSERT INTO house VALUES ('{ROWS.decode()}', 1), ('more', 2)")
    file = tmp_path / "file"
    file.write_bytes(FILE)
    log = clickhouse.folder / "log"
    told = log.stat().st_size
    yield file
    assert clickhouse.process.poll() is None, log.read_text()[-2000:]
    assert writer.query("SELECT s, a FROM house ORDER BY a").result_rows == [(ROWS.decode(), 1), ("more", 2)]
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert "Traceback" not in log.read_text()[told:]
    assert VIEWER not in log.read_bytes()
    writer.command("DROP TABLE house")


def test_no_data_without_a_role_and_no_crash(
    clickhouse: Any, house: Path, fuzz: Callable[..., None], mutated: Callable[..., st.SearchStrategy[bytes]]
) -> None:
    """Well-framed requests, on one connection as long as the server keeps it."""
    address = ("127.0.0.1", clickhouse.port)
    connection = socket.create_connection(address, 30)

    def answer(request: Asked) -> tuple[http.client.HTTPResponse, bytes]:
        nonlocal connection
        connection.sendall(request.wire)
        response = http.client.HTTPResponse(connection, method=request.method.decode())
        response.begin()
        body = response.read()
        if response.will_close:
            connection.close()
            connection = socket.create_connection(address, 30)
        return response, body

    def check(request: Asked) -> None:
        response, body = answer(request)
        assert FILE not in body
        assert response.getheader("x-clickhouse-exception-code") != "1002", (
            body
        )  # an error of ours and not of the engine's
        if not request.known:
            assert ROWS not in body
            assert response.status >= 400 or request.target.partition(b"?")[0] in OPEN

    fuzz(asked(mutated, house), check, longest_seconds=LONGEST_SECONDS, clock=time.monotonic)
    connection.close()


def test_bytes_that_are_hardly_http_neither_crash_nor_get_data(
    clickhouse: Any, house: Path, fuzz: Callable[..., None], mutated: Callable[..., st.SearchStrategy[bytes]]
) -> None:
    """Framing and all, a connection each, so a twentieth of the inputs; what is cut short waits for the rest."""
    unknown = asked(mutated, house).filter(lambda request: not request.known)
    pieces = [
        *PIECES,
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 99999999999\r\n",
        b"0\r\n\r\n",
        b"ffffffff\r\n",
    ]
    wires = unknown.flatmap(lambda request: mutated([request.wire], pieces))

    def check(wire: bytes) -> None:
        with socket.create_connection(("127.0.0.1", clickhouse.port), 0.02) as connection:
            received = b""
            with contextlib.suppress(OSError):
                connection.sendall(wire)
                while data := connection.recv(1 << 16):
                    received += data
        assert ROWS not in received
        assert FILE not in received

    fuzz(wires, check, part=0.05, longest_seconds=LONGEST_SECONDS, clock=time.monotonic)
    assert clickhouse.client("viewer").command("SELECT 1") == 1
