"""What a frame becomes in the table: value for value, one part a month, all of it or nothing."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
import xxhash
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.envelope import complete
from schemas.events import BY_NAME, POWER, TOKENS
from schemas.identity import with_identity
from schemas.settings import Settings
from streams.inserts import Inserts
from streams.rollup import roll_up

pytestmark = pytest.mark.e2e
START = datetime(2025, 1, 31, 23, 0, 0, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def client(tables: Settings) -> Client:
    return tables.clickhouse_client("writer")


def tokens(number: int, times: list[datetime]) -> pl.DataFrame:
    count = len(times)
    frame = pl.DataFrame(
        {
            "time": times,
            "source": ["网关"] * count,
            "id": [f"'{i}\\\x00" for i in range(count)],
            "gateway": ["g"] * count,
            "input_tokens": [None if i % 2 else 10**15 for i in range(count)],
            "duration_seconds": [None if i % 3 == 0 else 0.1 * i for i in range(count)],
        }
    )
    return with_identity(TOKENS, complete(TOKENS, frame)).with_columns(
        arrived=pl.lit(START).cast(pl.Datetime("ms", "UTC")),
        topic_partition=pl.lit(number, pl.UInt16),
        offset=pl.int_range(count, dtype=pl.Int64),
        place=pl.lit(0, pl.UInt32),
    )


def test_raw_rows_come_back_as_they_went(client: Client, new_partition: Callable[[], int]) -> None:
    number = new_partition()
    frame = tokens(number, [START + timedelta(seconds=i) for i in range(10)])
    categories = [pl.col(c).cast(pl.Categorical) for c in ("source", "gateway", "model")]
    Inserts(client).run("tokens", frame.with_columns(categories))
    arrow = client.query_arrow(
        f"SELECT * FROM tokens WHERE topic_partition = {number} ORDER BY offset", use_strings=True
    )
    found = pl.DataFrame(pl.from_arrow(arrow))
    shared = [c for c in frame.columns if not c.startswith("identity")]
    assert found.select(shared).cast(dict(frame.select(shared).schema)).equals(frame.select(shared))
    digests = client.query(
        f"SELECT hex(identity), id FROM tokens WHERE topic_partition = {number} ORDER BY offset"
    ).result_rows
    assert [digest.lower() for digest, _ in digests] == [
        xxhash.xxh3_128_hexdigest(f"网关\x1f{event_id}".encode()) for _, event_id in digests
    ]


def test_a_flush_is_one_part_a_month(client: Client, new_partition: Callable[[], int]) -> None:
    """A part is there whole or not at all; a month in two parts could be there in half."""
    months = [datetime(2010 + m // 12, m % 12 + 1, 5, tzinfo=UTC) for m in range(120)]
    frame = tokens(new_partition(), [months[i % 120] for i in range(150_000)])
    before = parts(client)
    Inserts(client).run("tokens", frame)
    added = [name for name in parts(client) - before if name[:4] < "2020"]
    assert len(added) == 120


def parts(client: Client) -> set[str]:
    rows = client.query(
        "SELECT name FROM system.parts WHERE database = 'wattstream' AND table = 'tokens' AND level = 0"
    ).result_rows
    return {name for (name,) in rows}


def test_rollups_merge_as_their_columns_say(client: Client, new_partition: Callable[[], int]) -> None:
    number = new_partition()
    power = complete(
        POWER,
        pl.DataFrame(
            {
                "time": [START, START + timedelta(seconds=1), START + timedelta(seconds=2)],
                "site": ["s"] * 3,
                "meter": ["m"] * 3,
                "role": ["it"] * 3,
                "watts": [1.5, None, -2.25],
                "joules": [7.0, 9.0, None],
            }
        ),
    ).with_columns(
        arrived=pl.lit(START).cast(pl.Datetime("ms", "UTC")),
        topic_partition=pl.lit(number, pl.UInt16),
        offset=pl.int_range(3, dtype=pl.Int64),
    )
    for i in range(3):
        partial = roll_up("power", power[i : i + 1])["power_1m"].with_columns(upto=pl.lit(i, pl.Int64))
        Inserts(client).run("power_1m", partial)
    row = client.query(
        "SELECT sum(samples), sum(power_samples), sum(milliwatts), min(watts_min), max(watts_max), "
        f"min(joules_first).2, max(joules_last).2, max(upto) FROM power_1m WHERE topic_partition = {number}"
    ).result_rows
    assert row == [(3, 2, -750, -2.25, 1.5, 7.0, 9.0, 2)]


def test_histograms_add_up_by_bucket(client: Client, new_partition: Callable[[], int]) -> None:
    number = new_partition()
    frame = tokens(number, [START] * 6).with_columns(
        duration_seconds=pl.Series([None, 1e-6, 1.0, 1.0, 2.0, None]), requests=pl.lit(5, pl.Int64)
    )
    for part in (frame[:1], frame[1:4], frame[4:]):
        rows = roll_up("tokens", part)["tokens_1m"].with_columns(upto=pl.lit(0, pl.Int64))
        Inserts(client).run("tokens_1m", rows)
    rows = client.query(f"SELECT duration_histogram FROM tokens_1m FINAL WHERE topic_partition = {number}").result_rows
    (histogram,) = rows[0]
    found = histogram if isinstance(histogram, dict) else dict(zip(*histogram, strict=True))
    assert found == {0: 5, math.floor(math.log2(1e6) * 4): 10, math.floor(math.log2(2e6) * 4): 5}


def test_a_condition_that_throws_refuses_all_rows(client: Client, new_partition: Callable[[], int]) -> None:
    number = new_partition()
    with pytest.raises(DatabaseError) as refused:
        Inserts(client).run("tokens", tokens(number, [START] * 1000), where="throwIf(1 = 1, 'no') = 0")
    assert refused.value.code == 395
    assert client.query(f"SELECT count() FROM tokens WHERE topic_partition = {number}").result_rows == [(0,)]


def test_no_rows_are_no_insert(client: Client) -> None:
    Inserts(client).run("no_such_table", BY_NAME["tokens"].frame_schema.to_frame())
