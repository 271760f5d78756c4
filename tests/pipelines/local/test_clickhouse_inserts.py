import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

FENCED = (
    "INSERT INTO readings SELECT a, s, d FROM input('a Int64, s String, d DateTime') "
    "WHERE throwIf((SELECT {fence}), 'fenced') = 0 FORMAT {format}"
)


def arrow_bytes(table: pa.Table, batch_rows: int = 1_000_000) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=batch_rows)
    return sink.getvalue().to_pybytes()


def two_months(rows: int) -> pa.Table:
    days = np.datetime64("2024-01-01", "s") + np.arange(rows) * np.timedelta64(60 * 86400 // rows, "s")
    return pa.table({"a": np.arange(rows), "s": ["x"] * rows, "d": pa.array(days, pa.timestamp("s"))})


def test_every_way_to_insert_puts_the_rows_there(clickhouse, table):
    client = clickhouse.client()
    day = datetime(2024, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame({"a": [3], "s": ["three"], "d": [day.replace(tzinfo=None)]})
    client.insert(table, [[1, "o'ne\n\\", day]], column_names=["a", "s", "d"])
    client.insert_arrow(table, frame.to_arrow().cast(two_months(1).schema))
    client.insert_df(table, frame.with_columns(a=pl.lit(4)).to_pandas())
    client.raw_insert(table, ["a", "s", "d"], b"5\tfive\t2024-01-01 00:00:00\n", fmt="TSV")
    client.raw_insert(table, ["a", "s", "d"], iter([b"6,six,", b"2024-01-01 00:00:00\n"]), fmt="CSV")
    client.command("INSERT INTO readings VALUES (7, 'seven', 0), (8, 'eight; SELECT 1', 0)")
    client.command("INSERT INTO readings SELECT 9, 'nine', 0")
    client.command("WITH 10 AS ten INSERT INTO readings SELECT ten, 'ten', 0;")
    rows = client.query("SELECT a, s FROM readings ORDER BY a").result_rows
    assert [a for a, _ in rows] == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert rows[0][1] == "o'ne\n\\"


@pytest.mark.parametrize("codec", ["lz4", "zstd", "gzip"])
def test_compressed_bodies_are_read(clickhouse, table, codec):
    client = clickhouse.client(compress=codec)
    client.insert_arrow(table, two_months(1000))
    client.insert(table, [[1, "x", datetime(2024, 1, 1, tzinfo=UTC)]], column_names=["a", "s", "d"])
    assert client.command("SELECT count() FROM readings") == 1001


def test_summary_counts_the_rows_written(clickhouse, table):
    summary = clickhouse.client().insert_arrow(table, two_months(1000), settings={"query_id": "mine"})
    assert (summary.written_rows, summary.query_id()) == (1000, "mine")


@pytest.mark.parametrize("batch_rows", [200_000, 7_000])
def test_fenced_insert_makes_one_part_a_month_however_its_body_is_cut(clickhouse, table, batch_rows):
    client = clickhouse.client()
    client.command("SYSTEM STOP MERGES readings")
    body = arrow_bytes(two_months(200_000), batch_rows)
    summary = client.command(FENCED.format(fence=0, format="ArrowStream"), data=body)
    assert summary.written_rows == 200_000
    parts = client.query(
        "SELECT partition, count() FROM system.parts WHERE active AND table = 'readings' GROUP BY 1 ORDER BY 1"
    )
    assert parts.result_rows == [("202401", 1), ("202402", 1)]


@pytest.mark.parametrize("name", ["ArrowStream", "Native"])
def test_refused_fence_is_code_395_and_writes_nothing(clickhouse, table, name):
    client = clickhouse.client()
    client.insert_arrow(table, two_months(10))
    body = arrow_bytes(two_months(10))
    if name == "Native":
        body = client.raw_query("SELECT * FROM readings", fmt="Native")
    with pytest.raises(DatabaseError) as refused:
        client.command(FENCED.format(fence=1, format=name), data=body)
    assert refused.value.code == 395
    assert client.command("SELECT count() FROM readings") == 10
    client.command(FENCED.format(fence=0, format=name), data=body)
    assert client.command("SELECT count() FROM readings") == 20


def test_fence_reads_the_table_of_claims_as_it_is_when_the_insert_runs(clickhouse, table):
    client = clickhouse.client()
    client.command("CREATE OR REPLACE TABLE claimed (epoch UInt64) ENGINE = MergeTree ORDER BY epoch")
    client.command("INSERT INTO claimed VALUES (1)")
    sql = FENCED.format(fence="max(epoch) != {mine:UInt64} FROM claimed", format="ArrowStream")
    body = arrow_bytes(two_months(10))
    client.command(sql, parameters={"mine": 1}, data=body)
    client.command("INSERT INTO claimed VALUES (2)")
    with pytest.raises(DatabaseError) as refused:
        client.command(sql, parameters={"mine": 1}, data=body)
    assert refused.value.code == 395
    assert client.command("SELECT count() FROM readings") == 10


def test_running_insert_shows_its_log_comment_until_it_has_ended(clickhouse, table):
    client, watcher = clickhouse.client(), clickhouse.client()
    sql = FENCED.format(fence="sleep(2)", format="ArrowStream")
    running = (
        "SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE {tag:String} AND is_initial_query"
    )

    def seen_while_it_runs() -> bool:
        client.command("TRUNCATE TABLE readings")
        body, settings = arrow_bytes(two_months(10)), {"log_comment": "flush/power/7"}
        with ThreadPoolExecutor(1) as pool:
            insert = pool.submit(client.command, sql, data=body, settings=settings)
            seen, deadline = False, time.monotonic() + 60
            while not seen and not insert.done():
                assert time.monotonic() < deadline
                seen = watcher.command(running, parameters={"tag": "%/power/7%"}) > 0
            insert.result()
        return seen

    assert any(seen_while_it_runs() for _ in range(5))  # on a busy machine it may be over before it is looked for
    assert watcher.command(running, parameters={"tag": "%/power/7%"}) == 0
    assert watcher.command("SELECT count() FROM readings") == 10


def test_flush_of_many_years_is_one_insert(clickhouse, table):
    client = clickhouse.client()
    months = pl.date_range(date(2000, 1, 1), date(2019, 12, 1), "1mo", eager=True)
    frame = pl.DataFrame({"a": range(len(months)), "s": "x", "d": months.cast(pl.Datetime("ms"))})
    client.insert_arrow(table, frame.to_arrow().cast(two_months(1).schema))
    assert client.command("SELECT uniq(_partition_id) FROM readings") == 240


def test_broken_body_is_an_error_and_writes_nothing(clickhouse, table):
    client = clickhouse.client()
    body = arrow_bytes(two_months(1000))
    for sql in ("INSERT INTO readings FORMAT ArrowStream", FENCED.format(fence=0, format="ArrowStream")):
        with pytest.raises(DatabaseError) as refused:
            client.command(sql, data=body[: len(body) // 2])
        assert refused.value.code
    assert client.command("SELECT count() FROM readings") == 0
