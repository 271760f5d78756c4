import shutil
import socket
import subprocess
import sys
import threading
import time

import httpx
import polars as pl
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.patience import quickest


def test_results_come_alike_by_every_way_of_asking(clickhouse):
    client = clickhouse.client()
    sql = "SELECT number AS n, toString(number) AS s, toDateTime(number, 'UTC') AS t FROM numbers(200000)"
    whole = client.query_arrow(sql)
    assert whole.num_rows == 200_000
    with client.query_arrow_stream(sql) as batches:
        streamed = pa.Table.from_batches(list(batches))
    assert streamed.equals(whole)
    assert pl.from_arrow(whole)["n"].sum() == sum(range(200_000))
    assert client.query_df(sql)["n"].sum() == sum(range(200_000))
    with client.query_row_block_stream(sql) as blocks:
        assert sum(len(block) for block in blocks) == 200_000
    assert client.query(sql, settings={"max_block_size": 1000}).row_count == 200_000
    with client.query_df_stream(sql) as frames:
        assert sum(len(frame) for frame in frames) == 200_000


@pytest.mark.parametrize("name", ["JSON", "CSVWithNames", "Parquet", "TSVWithNamesAndTypes", "JSONCompact", "Arrow"])
def test_formats_with_a_head_have_one_head(clickhouse, name):
    sql = "SELECT number FROM numbers(200000)"
    data = clickhouse.client().raw_query(sql, fmt=name)
    with clickhouse.client().raw_stream(sql, fmt=name) as stream:
        streamed = stream.read()
    cut = data.find(b"statistics") if name.startswith("JSON") else None
    assert streamed[:cut] == data[:cut]
    if name == "Parquet":
        assert pl.read_parquet(data).height == 200_000


def test_empty_result_keeps_its_columns(clickhouse):
    client = clickhouse.client()
    assert client.query_arrow("SELECT 1 AS x WHERE 0").column_names == ["x"]
    with client.query_arrow_stream("SELECT 1 AS x WHERE 0") as batches:
        assert sum(batch.num_rows for batch in batches) == 0
    assert client.query("SELECT 1 AS x LIMIT 0").column_names == ("x",)


def test_totals_are_not_lost(clickhouse):
    reply = clickhouse.http().post(
        "/", content=b"SELECT number % 2 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS"
    )
    assert reply.text.rstrip().endswith("\n\n0\t10")


def test_parameters_are_bound_in_the_server(clickhouse):
    values = {"i": 5, "s": "o'ne\t\\ two\n", "n": None, "a": ["x'", "y"], "f": 0.5}
    row = clickhouse.client().query(
        "SELECT {i:Int32}, {s:String}, {n:Nullable(String)}, {a:Array(String)}, {f:Float64}", parameters=values
    )
    assert row.result_rows == [(5, "o'ne\t\\ two\n", None, ["x'", "y"], 0.5)]
    reply = clickhouse.http().post("/?param_b=%FF%00&param_c$1=x", content=b"SELECT hex({b:String}), {c$1:String}")
    assert reply.text == "FF00\tx\n"


def test_query_need_not_be_utf8(clickhouse):
    assert clickhouse.http().post("/", content=b"SELECT hex('\xff\xfe')").text == "FFFE\n"


def test_settings_hold_for_their_request_and_unknown_ones_are_refused(clickhouse):
    client = clickhouse.client()
    assert client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 77}) == 77
    assert client.command("SELECT getSetting('max_block_size')") != 77
    with clickhouse.http() as http:
        for params, sql in (
            ({"no_such_setting": "1"}, "SELECT 1"),
            ({"no'; SET ROLE server --": "1"}, "SELECT 1"),
            ({}, "SELECT 1 SETTINGS no_such_setting = 1"),
            ({}, "SET no_such_setting = 1"),
        ):
            assert http.post("/", params=params, content=sql).headers["x-clickhouse-exception-code"] == "115"


def test_session_keeps_tables_and_settings_and_takes_one_request_at_a_time(clickhouse):
    client = clickhouse.client(session_id="mine")
    client.command("CREATE TEMPORARY TABLE kept (a Int8)")
    client.command("INSERT INTO kept VALUES (1), (2)")
    client.command("SET max_block_size = 99")
    client.command("SELECT 1", settings={"max_threads": 3})
    assert client.query("SELECT count(), getSetting('max_block_size') FROM kept").result_rows == [(2, 99)]
    assert client.command("SELECT getSetting('max_threads')") != 3
    with clickhouse.http() as http, clickhouse.http() as other:
        refused = threading.Event()

        def hold() -> None:  # again and again: the other may be in the session first, or come late
            while not refused.is_set():
                http.post("/", params={"session_id": "busy"}, content="SELECT sleep(1)")

        slow = threading.Thread(target=hold)
        slow.start()
        code, deadline = "", time.monotonic() + 60
        try:
            while code != "373" and time.monotonic() < deadline:
                reply = other.post("/", params={"session_id": "busy"}, content="SELECT 1")
                code = reply.headers.get("x-clickhouse-exception-code", "")
        finally:
            refused.set()
            slow.join()
        assert code == "373"
        assert other.post("/", params={"session_id": "none", "session_check": "1"}).status_code >= 400
    with clickhouse.http("viewer") as http:  # the name of a session is its user's alone
        reply = http.post("/", params={"session_id": "mine"}, content="SELECT count() FROM kept")
        assert reply.headers["x-clickhouse-exception-code"] == "60"


def test_session_is_free_before_the_client_has_the_last_byte(clickhouse):
    client = clickhouse.client(session_id="quick")
    for number in range(50):
        assert client.command(f"SELECT {number}") == number
    for _ in range(3):
        assert client.query("SELECT number FROM numbers(100000)").row_count == 100_000
        assert client.command("SELECT 1") == 1


def test_database_is_taken_from_each_request(clickhouse):
    client = clickhouse.client(session_id="base", database="system")
    assert client.command("SELECT currentDatabase()") == "system"
    assert clickhouse.client(session_id="base").command("SELECT currentDatabase()") == "wattstream"
    assert clickhouse.http().get("/", params={"query": "SELECT currentDatabase()"}).text == "wattstream\n"
    with clickhouse.http() as http:

        def ask(sql: str, **params: str) -> str:
            return http.post("/", params={"session_id": "moves"} | params, content=sql).text

        assert ask("SELECT currentDatabase()", database="system") == "system\n"
        assert ask("SELECT currentDatabase()") == "wattstream\n"
        ask("USE system")
        assert ask("SELECT currentDatabase()", database="wattstream") == "wattstream\n"
        assert ask("SELECT currentDatabase()") == "system\n"
    reply = clickhouse.http().get("/", params={"query": "SELECT 1", "database": "nowhere"})
    assert (reply.status_code, reply.headers["x-clickhouse-exception-code"]) == (404, "81")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "identity"])
def test_replies_are_compressed_where_asked(clickhouse, encoding):
    with clickhouse.http() as http:
        for params in ({"wait_end_of_query": "1"}, {}):
            reply = http.get(
                "/",
                params={"query": "SELECT * FROM numbers(100000)", "enable_http_compression": "1"} | params,
                headers={"Accept-Encoding": encoding},
            )
            assert reply.headers.get("content-encoding", "identity") == encoding
            assert len(reply.text.splitlines()) == 100_000
        plain = http.get("/", params={"query": "SELECT 1"}, headers={"Accept-Encoding": encoding})
        assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("codec", ["lz4", "zstd", "gzip"])
def test_client_reads_compressed_replies(clickhouse, codec):
    client = clickhouse.client(compress=codec)
    assert client.query("SELECT * FROM numbers(100000)").row_count == 100_000
    with client.query_row_block_stream("SELECT * FROM numbers(100000)") as blocks:
        assert sum(len(block) for block in blocks) == 100_000
    with pytest.raises(DatabaseError):
        client.query("SELECT nothing")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd"])
def test_error_in_mid_stream_reaches_the_client(clickhouse, compress):
    client = clickhouse.client(compress=compress)
    sql = "SELECT throwIf(number = 900000, 'late') FROM numbers(1000000)"
    with (
        pytest.raises(StreamFailureError, match=r"Code: 395\. DB::Exception: late"),
        client.query_row_block_stream(sql) as stream,
    ):
        for _ in stream:
            pass
    with pytest.raises(DatabaseError) as refused:
        client.query(sql)
    assert refused.value.code == 395
    assert client.command("SELECT 1") == 1


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 403, 497),
        ("SELECT 1 +", 400, 62),
        ("", 400, 62),
        ("SELECT nothing", 404, 47),
        ("SELECT * FROM nothing", 404, 60),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT throwIf(1)", 500, 395),
        ("INSERT INTO nothing FORMAT TSV\n1", 404, 60),
        ("INSERT INTO t FORMAT NoSuchFormat\n1", 404, 60),
        ("SELECT 1 FORMAT NoSuchFormat", 404, 73),
    ],
)
def test_errors_have_clickhouses_form(clickhouse, sql, status, code):
    reply = clickhouse.http().post("/", content=sql)
    assert (reply.status_code, reply.headers["x-clickhouse-exception-code"]) == (status, str(code)), reply.text
    assert reply.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in reply.text


def test_reply_names_query_and_format_and_sums_up(clickhouse):
    with clickhouse.http() as http:
        reply = http.post(
            "/", params={"query_id": "mine", "wait_end_of_query": "1"}, content="SELECT * FROM numbers(10)"
        )
        assert reply.headers["x-clickhouse-query-id"] == "mine"
        assert reply.headers["x-clickhouse-format"] == "TabSeparated"
        assert reply.headers["x-clickhouse-timezone"]
        assert '"read_rows": "10"' in reply.headers["x-clickhouse-summary"]
        assert "x-clickhouse-format" not in http.post("/", content="CREATE TEMPORARY TABLE x (a Int8)").headers


def test_get_reads_only(clickhouse, table):
    with clickhouse.http() as http:
        for sql in ("DROP TABLE readings", "INSERT INTO readings VALUES (1, 'x', 0)"):
            reply = http.get("/", params={"query": sql})
            assert reply.headers["x-clickhouse-exception-code"] == "164"
        assert http.head("/", params={"query": "SELECT 1"}).status_code == 200
        assert http.get("/nowhere").status_code == 404


def test_opening_of_grafanas_datasource_is_answered(clickhouse):
    # As clickhouse-go 2 sends it over HTTP; it reads the block as its own revision frames it.
    reply = clickhouse.http("viewer").post(
        "/",
        params={"client_protocol_version": "54483", "database": "wattstream", "default_format": "Native"},
        headers={
            "User-Agent": "grafana-clickhouse-datasource clickhouse-go/2.42.0 (lv:go/1.25; os:linux)",
            "Accept-Encoding": "gzip",
        },
        content=b"SELECT displayName(), version(), revision(), timezone()",
    )
    data = reply.content
    head = b"\x01\x00\x02\xff\xff\xff\xff\x00" + b"\x04\x01" + b"\x0ddisplayName()\x06String\x00\x0awattstream"
    assert data.startswith(head)
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in data
    plain = clickhouse.http("viewer").post(
        "/",
        params={"client_protocol_version": "54483", "default_format": "Native"},
        content=b"SELECT toUInt8(1) AS x",
    )
    assert plain.content == b"\x01\x01\x01x\x05UInt8\x01"


def test_what_is_not_done_is_refused(clickhouse):
    with clickhouse.http() as http:
        for params in ({"compress": "1"}, {"decompress": "1"}):
            reply = http.post("/", params=params, content="SELECT 1")
            assert (reply.status_code, reply.headers["x-clickhouse-exception-code"]) == (501, "48")
        reply = http.post("/", headers={"Content-Encoding": "br"}, content="SELECT 1")
        assert reply.headers["x-clickhouse-exception-code"] == "48"


def test_forms_and_external_tables_are_read(clickhouse):
    client = clickhouse.client(form_encode_query_params=True)
    assert client.query("SELECT {x:String}", parameters={"x": "a&b=c"}).result_rows == [("a&b=c",)]
    data = ExternalData(file_name="t.tsv", data=b"1\tone\n2\ttwo\n", fmt="TSV", structure=["a Int32", "s String"])
    for user in ("writer", "viewer"):
        rows = clickhouse.client(user).query("SELECT sum(a), max(s) FROM t", external_data=data).result_rows
        assert rows == [(3, "two")]
    reply = clickhouse.http().post("/", data={"query": "SELECT {n:Int8} + 1", "param_n": "1"})
    assert reply.text == "2\n"


def test_query_ends_when_its_client_leaves(clickhouse):
    watcher = clickhouse.client()
    running = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {tag:String}"
    for endless, params in (
        ("SELECT count() FROM system.numbers", ""),
        ("SELECT number FROM system.numbers", ""),
        ("SELECT number FROM system.numbers", "&wait_end_of_query=1"),
    ):
        with socket.create_connection(("127.0.0.1", clickhouse.port)) as client:
            client.sendall(
                f"POST /?user=writer&password=w-secret&log_comment=left{params} HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Length: {len(endless)}\r\n\r\n{endless}".encode()
            )
            _await(lambda: watcher.command(running, parameters={"tag": "left"}) == 1)
        _await(lambda: watcher.command(running, parameters={"tag": "left"}) == 0)


def test_insert_whose_body_is_cut_off_is_never_run(clickhouse, table):
    with socket.create_connection(("127.0.0.1", clickhouse.port)) as client:
        client.sendall(
            b"POST /?user=writer&password=w-secret HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
            b"INSERT INTO readings FORMAT TSV\n1\tx\t0\n"
        )
    assert clickhouse.client().command("SELECT count() FROM readings") == 0


def test_slow_dashboards_leave_room_for_the_writer(clickhouse):
    stop = threading.Event()

    def slow() -> None:
        with clickhouse.http("viewer") as http:
            while not stop.is_set():
                http.post("/", content="SELECT sleep(0.3)")

    threads = [threading.Thread(target=slow) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        client = clickhouse.client()

        def five_answers() -> float:
            begun = time.monotonic()
            for _ in range(5):
                client.command("SELECT 1")
            return time.monotonic() - begun

        assert quickest(five_answers, 1.5, tries=5) < 1.5
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_asks_and_sends(clickhouse, table):
    def curl(*arguments: str, data: bytes = b"") -> str:
        argv = ["curl", "-sS", "-u", "writer:w-secret", *arguments]
        return subprocess.run(argv, input=data, capture_output=True, check=True).stdout.decode()

    url = clickhouse.url
    assert curl(f"{url}/?query=SELECT%201") == "1\n"
    assert curl(url, "-d", "SELECT 1 = 1") == "1\n"
    assert (
        curl(
            f"{url}/?query=INSERT%20INTO%20readings%20FORMAT%20CSV",
            "--data-binary",
            "@-",
            data=b"1,x,2024-01-01 00:00:00\n",
        )
        == ""
    )
    assert curl(f"{url}/?query=SELECT%20count()", "-d", "FROM readings FORMAT JSONEachRow") == '{"count()":1}\n'
    assert curl("-H", "X-ClickHouse-Format: JSONEachRow", url, "--data-binary", "SELECT 1 AS x;") == '{"x":1}\n'
    assert curl("-T", "-", url, data=b"SELECT 2") == "2\n"


def _await(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ping_needs_nobody(clickhouse):
    assert httpx.get(clickhouse.url + "/ping").text == "Ok.\n"


def test_no_parameter_begins_a_header_of_the_reply(clickhouse):
    params = {"query_id": "q\r\nSet-Cookie: a=b", "query": "SELECT 1"}
    for reply in (httpx.get(clickhouse.url, params=params), clickhouse.http().get("/", params=params)):
        assert reply.headers["x-clickhouse-query-id"] == "q??Set-Cookie: a=b"
        assert "set-cookie" not in reply.headers


def test_a_revision_that_is_no_number_is_none(clickhouse):
    for revision in ("\u00b2", "9" * 5000, "-1", ""):
        asked = {"client_protocol_version": revision, "default_format": "Native", "query": "SELECT 1"}
        assert clickhouse.http().get("/", params=asked).status_code == 200


def test_an_error_that_quotes_bytes_which_are_no_text_is_the_engines_own(clickhouse):
    reply = clickhouse.http().post("/", content=b"SELECT\xa0FROM\xff")
    tells = sys.version_info >= (3, 11, 5)  # before, Python drops an error's words that are no text
    code, words = ("62", "Syntax error") if tells else ("117", "bytes which are no UTF-8")
    assert (reply.status_code, reply.headers["x-clickhouse-exception-code"]) == (400, code), reply.text
    assert words in reply.text
