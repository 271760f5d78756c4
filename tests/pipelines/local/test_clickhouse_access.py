import os

import httpx
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

DENIED = {497, 164}

FILES = [
    "SELECT file('{secret}')",
    "SELECT `file`('{secret}')",
    "SELECT \"file\"('{secret}')",
    "SELECT file /* x */ ('{secret}')",
    "SELECT file -- x\n('{secret}')",
    "SELECT file // x\n('{secret}')",
    "SELECT ‘--’, file('{secret}')",
    "SELECT arrayMap(file, ['{secret}'])",
    "SELECT * APPLY file FROM (SELECT '{secret}' AS p)",
    "SELECT * APPLY /* x */ `file` FROM (SELECT '{secret}' AS p)",
    "SELECT 1 SETTINGS additional_result_filter = 'throwIf(fi\\x6ce(\\'{secret}\\') = \\'\\', \\'x\\')'",
    "SELECT * FROM file('{secret}', 'LineAsString')",
    "SELECT * FROM file('{secret}', 'LineAsString', 'line String')",
    "SELECT * FROM filesystem('{folder}')",
    "SELECT * FROM url('file://{secret}', 'LineAsString', 'line String')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'line String')",
    "SELECT * FROM s3('http://127.0.0.1:1/x', 'LineAsString', 'line String')",
    "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM sqlite('{secret}', 'x')",
    "SELECT * FROM executable('x', 'TSV', 'a String')",
    "SELECT * FROM Python(engine)",
    "SELECT * FROM icebergLocal('{folder}')",
    "SELECT * FROM deltaLakeLocal('{folder}')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM view(SELECT * FROM file('{secret}', 'LineAsString', 'line String'))",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '{secret}'",
    "SELECT 1 FORMAT Protobuf SETTINGS format_schema = '{secret}:x'",
    "SELECT 'x' INTO OUTFILE '{folder}/out'",
    "SELECT 'x' INTO/**/OUTFILE '{folder}/out'",
    "SHOW TABLES INTO OUTFILE '{folder}/out'",
    "INSERT INTO readings FROM INFILE '{secret}' FORMAT CSV",
    "CREATE TABLE f (line String) ENGINE = File(LineAsString, '{secret}')",
    "CREATE TABLE f (line String) ENGINE = URL('http://127.0.0.1:1/', LineAsString)",
    "CREATE TEMPORARY TABLE f (line String) ENGINE = File(LineAsString, '{secret}')",
    "CREATE VIEW f (a String) DEFINER = default SQL SECURITY DEFINER AS SELECT * FROM file('{secret}', CSV)",
    "CREATE DICTIONARY f (line String) PRIMARY KEY line SOURCE(FILE(path '{secret}' format 'LineAsString')) "
    "LAYOUT(complex_key_direct())",
    *(
        f"CREATE {what} f (a UInt64, s String) PRIMARY KEY a SOURCE({source}) LAYOUT({layout}) LIFETIME(0)"
        for what, source, layout in (
            ("DICTIONARY", "HTTP(url 'http://127.0.0.1:1/' format 'TSV')", "FLAT()"),
            ("OR REPLACE DICTIONARY", "MYSQL(host '127.0.0.1' port 1 user 'a' db 'b' table 'c')", "FLAT()"),
            ("DICTIONARY IF NOT EXISTS", "`clickhouse`(`host` '127.0.0.1' port 1 table 'c')", "FLAT()"),
            ("DICTIONARY", "CLICKHOUSE(TABLE 'readings')", "SSD_CACHE(path '{folder}/out')"),
        )
    ),
    "CREATE FUNCTION f AS (x) -> x",
    "ATTACH TABLE f FROM '{folder}' (a Int8) ENGINE = MergeTree ORDER BY a",
    "BACKUP TABLE readings TO File('{folder}/out')",
    "RESTORE TABLE readings FROM File('{folder}/out')",
    "CREATE TABLE f (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{folder}/')",
    "CREATE DATABASE wattstream_f ENGINE = Filesystem('{folder}')",
    "CREATE DATABASE wattstream_f ENGINE = SQLite('{secret}')",
    "CREATE DATABASE wattstream_f ENGINE = MySQL('127.0.0.1:1', 'a', 'b', 'c')",
    "SELECT * FROM `\\x66ile`('{secret}', 'LineAsString', 'line String')",
    "SELECT * FROM \"f\\x69le\"('{secret}', 'LineAsString', 'line String')",
    "SELECT * FROM `\\x50ython`(engine)",
    "SELECT * FROM `{secret}`",
    "SELECT * FROM default.`{secret}`",
]
ROLES = [
    "SET ROLE writer",
    "SET ROLE ALL",
    "SET /* x */ ROLE writer",
    "set role\nserver",
    "SET DEFAULT ROLE writer TO default",
    "EXECUTE AS default SELECT 1",
    "GRANT writer TO viewer",
    "GRANT SELECT ON *.* TO viewer",
    "REVOKE ALL ON *.* FROM writer",
    "CREATE USER u",
    "CREATE ROLE r",
    "ALTER USER default IDENTIFIED BY 'x'",
    "SELECT 1; SET ROLE writer",
    "SET max_threads = 1 PARALLEL WITH SET ROLE writer",
    "SET max_threads = 1 PARALLEL/**/with\nSET ROLE ALL",
    "SELECT 1 PARALLEL WITH SET ROLE writer",
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "SYSTEM RELOAD CONFIG",
]
WRITES = [
    "INSERT INTO readings VALUES (1, 'x', 0)",
    "INSERT INTO readings SELECT 1, 'x', 0",
    "INSERT INTO readings SELECT a, s, d FROM input('a Int64, s String, d DateTime') FORMAT TSV 1\tx\t0",
    "CREATE TABLE v (a Int8) ENGINE = Memory",
    "CREATE VIEW v AS SELECT 1",
    "CREATE DATABASE wattstream_v",
    "DROP TABLE readings",
    "DROP DATABASE wattstream",
    "TRUNCATE TABLE readings",
    "ALTER TABLE readings DELETE WHERE 1",
    "ALTER TABLE readings DROP PARTITION 202401",
    "DELETE FROM readings WHERE 1",
    "OPTIMIZE TABLE readings",
    "RENAME TABLE readings TO v",
    "EXCHANGE TABLES readings AND v",
    "SET max_threads = 1 PARALLEL WITH KILL QUERY WHERE 1 ASYNC",
    "KILL QUERY WHERE 1 ASYNC",
    "SYSTEM STOP MERGES",
    "SYSTEM FLUSH LOGS",
]


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text("S3CRET")
    return file


def refused_with(client: httpx.Client, sql: str, **params: str) -> int:
    """The code of the error; fails where there is none."""
    reply = client.post("/", params=params, content=sql.encode())
    assert reply.status_code >= 400, (sql, reply.text)
    assert "S3CRET" not in reply.text
    code = int(reply.headers["x-clickhouse-exception-code"])
    assert reply.text.startswith(f"Code: {code}. DB::Exception: "), reply.text
    return code


@pytest.mark.parametrize("user", ["writer", "planner", "viewer"])
def test_nobody_reads_or_writes_files_or_calls_out(clickhouse, table, secret, user):
    with clickhouse.http(user) as http:
        for sql in FILES:
            refused_with(http, sql.format(secret=secret, folder=secret.parent))
    assert os.listdir(secret.parent) == ["secret"]


@pytest.mark.parametrize("user", ["writer", "planner", "viewer"])
def test_nobody_changes_a_role_or_steers_the_engine(clickhouse, table, user):
    with clickhouse.http(user) as http:
        for sql in ROLES:
            refused_with(http, sql)
        assert refused_with(http, "SELECT 1", role="server") == 512
        session = {"session_id": "climb"}
        for sql in ROLES:
            refused_with(http, sql, **session)
        assert http.post("/", params=session, content=b"SELECT currentRoles()").text == f"['{user}']\n"


@pytest.fixture(scope="module")
def with_admin(tmp_path_factory, clickhouse):
    """A server that lets the user admin in, WattStream's table `readings` there."""
    server = type(clickhouse)(tmp_path_factory.mktemp("admin"), "--admin")
    server.client().command("CREATE TABLE readings (a Int64, s String, d DateTime) ENGINE = MergeTree ORDER BY a")
    yield server
    server.stop()


def test_admin_makes_databases_and_tables_of_their_own(with_admin):
    admin = with_admin.client("admin", database=None)
    for sql in (
        "CREATE DATABASE shop",
        "CREATE TABLE shop.sold (a Int8, s String) ENGINE = MergeTree ORDER BY a",
        "INSERT INTO shop.sold VALUES (1, 'x'), (2, 'y')",
        "ALTER TABLE shop.sold ADD COLUMN more Int8",
        "CREATE VIEW shop.some AS SELECT a FROM shop.sold",
        "OPTIMIZE TABLE shop.sold FINAL",
        "CREATE TABLE shop.other AS shop.sold",
        "EXCHANGE TABLES shop.sold AND shop.other",
        "RENAME TABLE shop.other TO shop.old",
        "TRUNCATE TABLE shop.sold",
        "KILL QUERY WHERE query_id = 'none' ASYNC",
        "SYSTEM FLUSH LOGS",
        "CREATE DICTIONARY shop.names (a UInt64, s String) PRIMARY KEY a "
        "SOURCE(CLICKHOUSE(DB 'shop' TABLE 'old')) LAYOUT(FLAT()) LIFETIME(0)",
        "SYSTEM RELOAD DICTIONARY shop.names",
    ):
        admin.command(sql)
    assert admin.command("SELECT dictGet('shop.names', 's', 2)") == "y"
    assert admin.command("SELECT sum(a) FROM shop.some") == 0
    assert with_admin.client("admin", database="shop").command("SELECT sum(a) FROM old") == 3
    assert admin.command("SELECT currentDatabase()") == "default"
    with with_admin.http("viewer") as http:
        assert refused_with(http, "SELECT * FROM shop.old") == 497
    admin.command("DROP DATABASE shop")


def test_admin_only_reads_wattstreams_own(with_admin):
    allowed = {"KILL QUERY WHERE 1 ASYNC", "SYSTEM STOP MERGES", "SYSTEM FLUSH LOGS"}
    with with_admin.http("admin") as http:
        http.params = httpx.QueryParams(database="wattstream")
        for sql in set(WRITES) - allowed:
            assert refused_with(http, sql) in DENIED, sql
        assert refused_with(http, "INSERT INTO readings FORMAT TSV\n1\tx\t0") in DENIED
        assert http.post("/", content=b"SELECT count() FROM readings").text == "0\n"


@pytest.mark.parametrize("database", ["default", "wattstream"])
def test_admin_reads_no_files_and_changes_no_role(with_admin, secret, database):
    with with_admin.http("admin") as http:
        for sql in FILES:
            refused_with(http, sql.format(secret=secret, folder=secret.parent), database=database)
        for sql in ROLES:
            refused_with(http, sql)
    assert os.listdir(secret.parent) == ["secret"]


def test_viewer_only_reads(clickhouse, table):
    clickhouse.client().command("INSERT INTO readings VALUES (1, 'x', 0)")
    with clickhouse.http("viewer") as http:
        for sql in WRITES:
            assert refused_with(http, sql) in DENIED, sql
        assert refused_with(http, "INSERT INTO readings FORMAT TSV\n1\tx\t0") in DENIED
        assert refused_with(http, "SELECT 1", readonly="0") in DENIED
        assert refused_with(http, "SET readonly = 0") in DENIED
        for name in ("query_log", "processes", "users", "text_log", "`processes`", '"processes"'):
            assert refused_with(http, f"SELECT * FROM system . {name} LIMIT 1") == 497
        assert refused_with(http, "SELECT * FROM system // x\n. // y\nprocesses") == 497
        assert refused_with(http, "SELECT * FROM merge('system', 'processes')") == 497
        assert refused_with(http, "SELECT * FROM processes", database="system") == 497
        assert refused_with(http, "USE system") == 497
        assert refused_with(http, "SHOW PROCESSLIST") == 497
        assert refused_with(http, "SELECT * FROM {d:Identifier}.processes", param_d="system") == 497
        assert refused_with(http, "SELECT * FROM `\\x73ystem`.processes") == 497
        assert http.post("/", content=b"SELECT count() FROM readings").text == "1\n"
        for name in ("tables", "columns", "databases", "settings", "functions", "formats"):
            assert http.post("/", content=f"SELECT count() FROM system.{name}".encode()).status_code == 200


def test_viewer_has_one_thread_and_the_writer_more(clickhouse):
    assert clickhouse.client("viewer").command("SELECT getSetting('max_threads')") == 1
    assert clickhouse.client().command("SELECT getSetting('max_threads')") != 1


def test_planner_fills_tables_and_replaces_partitions(clickhouse, table):
    planner = clickhouse.client("planner")
    planner.command("DROP TABLE IF EXISTS next")
    planner.command("CREATE TABLE next AS readings")
    planner.command("INSERT INTO next VALUES (1, 'x', '2024-01-05 00:00:00')")
    planner.command("ALTER TABLE readings REPLACE PARTITION 202401 FROM next")
    assert planner.command("SELECT count() FROM readings") == 1
    planner.command("ALTER TABLE readings DROP PARTITION 202401")
    planner.command("TRUNCATE TABLE next")
    planner.command("DROP TABLE next")
    with clickhouse.http("planner") as http:
        for sql in (
            "INSERT INTO readings SELECT a, s, d FROM input('a Int64, s String, d DateTime') FORMAT TSV 1\tx\t0",
            "CREATE DATABASE wattstream_p",
            "CREATE DATABASE other",
            "DROP DATABASE wattstream",
            "KILL QUERY WHERE 1 ASYNC",
        ):
            assert refused_with(http, sql) == 497, sql


def test_writer_makes_views_databases_and_exchanges_tables(clickhouse, table):
    writer = clickhouse.client()
    for sql in (
        "CREATE OR REPLACE VIEW seen AS SELECT a FROM readings",
        "CREATE TABLE other AS readings",
        "CREATE MATERIALIZED VIEW fed TO other AS SELECT * FROM readings",
        "INSERT INTO readings VALUES (1, 'x', '2024-01-05 00:00:00')",
        "DROP VIEW fed",
        "EXCHANGE TABLES readings AND other",
        "ALTER TABLE readings REPLACE PARTITION 202401 FROM other",
        "ALTER TABLE readings ADD COLUMN more Int8, COMMENT COLUMN more 'more'",
        "OPTIMIZE TABLE readings FINAL",
        "DELETE FROM readings WHERE a = 5",
        "DROP TABLE other",
        "DROP VIEW seen",
        "CREATE DATABASE IF NOT EXISTS wattstream_side",
        "CREATE TABLE wattstream_side.t (a Int8) ENGINE = MergeTree ORDER BY a",
        "DROP DATABASE wattstream_side",
        "KILL QUERY WHERE query_id = 'none' ASYNC",
        "SYSTEM FLUSH LOGS",
    ):
        writer.command(sql)
    for name in ("processes", "parts", "tables", "columns", "query_log", "merges", "mutations", "parts_columns"):
        writer.query(f"SELECT count() FROM system.{name}")


@pytest.mark.parametrize(
    "auth", [None, ("writer", "wrong"), ("nobody", ""), ("default", ""), ("server", ""), ("admin", "a-secret")]
)
def test_without_the_password_nobody_gets_in(clickhouse, auth):
    reply = httpx.post(clickhouse.url, content=b"SELECT 1", auth=auth)
    assert reply.status_code in {401, 403}
    assert reply.headers["x-clickhouse-exception-code"] == "516"


@pytest.mark.parametrize("coded", [b"\xff", b"a", b"/w==", b"v:v-secret"])
def test_an_authorization_that_cannot_be_read_is_refused(clickhouse, coded):
    reply = httpx.post(clickhouse.url, content=b"SELECT 1", headers={b"Authorization": b"Basic " + coded})
    assert reply.status_code in {401, 403}
    assert reply.headers["x-clickhouse-exception-code"] in {"193", "516"}


def test_password_is_taken_from_header_key_and_parameters(clickhouse):
    headers = {"X-ClickHouse-User": "viewer", "X-ClickHouse-Key": "v-secret"}
    assert httpx.post(clickhouse.url, content=b"SELECT 1", headers=headers).text == "1\n"
    params = {"user": "viewer", "password": "v-secret", "query": "SELECT 2"}
    assert httpx.get(clickhouse.url, params=params).text == "2\n"
    with pytest.raises((DatabaseError, OperationalError)):
        clickhouse.client(headers={"Authorization": "Bearer x"})


def test_other_names_of_the_host_are_refused(clickhouse):
    for host in ("evil.example", f"evil.example:{clickhouse.port}", "127.0.0.1.evil.example", "", ":1", "::1"):
        refused = httpx.get(clickhouse.url + "/ping", headers={"Host": host})
        assert refused.status_code == 403
        assert "ask for 127.0.0.1 or localhost" in refused.text
    for host in ("localhost", f"localhost:{clickhouse.port}", f"[::1]:{clickhouse.port}", "LOCALHOST"):
        assert httpx.get(clickhouse.url + "/ping", headers={"Host": host}).text == "Ok.\n"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
    ids=str,
)
def test_a_page_of_another_site_can_ask_nothing_though_the_browser_knows_a_password(clickhouse, table, headers):
    insert = {"query": "INSERT INTO readings VALUES (1, 'x', 0)"}
    with clickhouse.http() as http:
        for refused in (
            http.post("/", params=insert, headers=headers),
            http.post("/", data=insert, headers=headers),
            http.get("/", params={"query": "SELECT 1"}, headers=headers),
            http.options("/", headers=headers | {"Access-Control-Request-Method": "POST"}),
        ):
            assert (refused.status_code, refused.headers["x-clickhouse-exception-code"]) == (403, "497")
            assert not any(name.startswith("access-control") for name in refused.headers)
        assert http.post("/", content=b"SELECT count() FROM readings").text == "0\n"


def test_who_types_the_address_into_a_browser_is_answered(clickhouse):
    own = {"Origin": clickhouse.url}
    for headers in ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, {"Sec-Fetch-Site": "same-origin"}, own):
        with clickhouse.http("viewer") as http:
            assert http.get("/", params={"query": "SELECT 1"}, headers=headers).text == "1\n"
