import time

import pytest

from pipelines.local.access import refuse
from pipelines.local.clickhouse_statement import parse


@pytest.mark.parametrize(
    ("text", "sql", "name", "rest"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", b"INSERT INTO t ", "Native", b"\x01\x02"),
        (b"INSERT INTO t (a, b) FORMAT TSV \r\n1\t2", b"INSERT INTO t (a, b) ", "TSV", b"1\t2"),
        (b"insert into t values (1), (2)", b"insert into t ", "Values", b" (1), (2)"),
        (b"INSERT INTO t /* FORMAT CSV */ (a) FORMAT\n CSV\n'", b"INSERT INTO t /* FORMAT CSV */ (a) ", "CSV", b"'"),
        (b"INSERT INTO values FORMAT TSV\nx", b"INSERT INTO values ", "TSV", b"x"),
        (b"INSERT INTO t (values) VALUES (1)", b"INSERT INTO t (values) ", "Values", b" (1)"),
    ],
)
def test_data_of_an_insert_begins_where_the_engine_would_see_it(text: bytes, sql: bytes, name: str, rest: bytes):
    statement = parse(text)
    assert (statement.sql, statement.format) == (sql, name)
    assert text[statement.data :] == rest


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"SELECT 1", None),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 'a FORMAT CSV' -- FORMAT TSV\n FORMAT Native ; ", "Native"),
        (b"// FORMAT TSV\nSELECT 1 // FORMAT CSV\n FORMAT Native", "Native"),
        (b"SELECT (SELECT 1 FORMAT CSV)", None),
        (b"SELECT 1 FORMAT JSONEachRow SETTINGS max_threads = 1", "JSONEachRow"),
        (b"/* a /* FORMAT CSV */ FORMAT TSV */ SELECT 1", None),
        (b"SELECT $$ FORMAT CSV $$ FORMAT TSV", "TSV"),
    ],
)
def test_format_of_a_query_is_its_own_clause(text: bytes, name: str | None):
    statement = parse(text)
    assert (statement.format, statement.data, statement.insert) == (name, None, False)


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT '" + b"\\'" * 500_000,
        b'SELECT "' + b'\\"' * 500_000,
        b"SELECT " + b"`" * 500_001,
        b"SELECT " + b"\xe2\x80\x98" * 300_000,
        b"SELECT " + b"".join(b"$%d" % i for i in range(100_000)),
        b"SELECT file" + b"/**/" * 200_000 + b"x",
        b"SELECT 1 FROM " + b"file--" * 100_000,
        b"SELECT 1 FROM " + b"INTO/*" * 100_000,
    ],
    ids=lambda text: text[:16].decode(errors="replace"),
)
def test_no_statement_takes_long_to_read(text: bytes):
    """They took from minutes to longer than there is time, and the server did nothing else meanwhile."""
    begun = time.process_time()
    refuse("viewer", parse(text), "")
    assert time.process_time() - begun < 5


def test_a_string_without_an_end_is_all_the_rest():
    for quote in (b"'", b'"', b"`", b"\xe2\x80\x98"):
        statement = parse(b"SELECT " + quote + b"x FORMAT TSV")
        assert statement.format is None
    assert parse(b"SELECT $a$ FORMAT CSV").format == "CSV"


def test_call_of_input_is_found_and_its_statement_waits_for_data():
    text = b"INSERT INTO t (a) SELECT a FROM input('a Int64, s String') AS i WHERE throwIf(1) = 0 FORMAT Native\n\xff"
    statement = parse(text)
    assert statement.input is not None
    assert text[statement.input.start : statement.input.end] == b"input('a Int64, s String')"
    assert statement.input.structure == b"'a Int64, s String'"
    assert text[statement.data :] == b"\xff"
    assert statement.sql.endswith(b"= 0 ")


def test_insert_behind_with_is_an_insert_and_one_from_select_awaits_no_data():
    assert parse(b"WITH 1 AS x INSERT INTO t SELECT x").insert
    assert parse(b"INSERT INTO t SELECT 1 FORMAT Null").data is None


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("INSERT INTO t VALUES (1)", True),
        ("INSERT INTO t FORMAT Native ", True),
        ("INSERT INTO t SELECT 1", True),
        ("WITH 1 AS x INSERT INTO t SELECT x", True),
        ("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a", True),
        ("ALTER TABLE t DELETE WHERE 1 SETTINGS mutations_sync = 1", True),
        ("DELETE FROM t WHERE 1", True),
        ("UPDATE t SET a = 1 WHERE 1", True),
        ("RENAME TABLE a TO b", True),
        ("EXCHANGE TABLES a AND b", True),
        ("OPTIMIZE TABLE t", True),
        ("TRUNCATE TABLE t", True),
        ("DROP TABLE t", True),
        ("SELECT 1", False),
        ("(SELECT 1)", False),
        ("WITH 1 AS x SELECT x", False),
        ("EXPLAIN SELECT 1", False),
        ("SHOW TABLES", False),
        ("SET max_threads = 1", False),
        ("KILL QUERY WHERE 1", False),
        ("SYSTEM START MERGES", True),
    ],
)
def test_a_statement_says_whether_it_writes_files(text: str, writes: bool):
    assert parse(text.encode()).writes is writes
