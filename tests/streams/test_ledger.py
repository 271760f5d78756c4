"""The server itself refuses who lost a partition, and tells what an identity's minute holds: on the real engine."""

from collections.abc import Callable

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.events import TOKENS
from schemas.settings import Settings
from streams.dedupe import Seen
from streams.flush import Flush, Portion
from streams.intake import keyed
from streams.ledger import Claim, Lost, Position
from streams.polled import Polled
from tests.streams.claimant import Claimant, NewPartition, claimant, count, rows

pytestmark = pytest.mark.e2e


def test_the_highest_claim_owns_and_a_lower_one_writes_nothing(tables: Settings, new_partition: NewPartition) -> None:
    number = new_partition()
    old, new = claimant(tables), claimant(tables)
    first = old.take(number)
    old.ledger.insert([first.claim], "tokens", rows(number, range(3)))
    second = new.take(number)
    assert (first.claim.epoch, second.claim.epoch) == (1, 2)
    assert sorted(second.present["offset"]) == [0, 1, 2]
    for table, frame in (("tokens", rows(number, range(3, 6))), ("deadletters", rejects(number))):
        with pytest.raises(Lost):
            old.ledger.insert([first.claim], table, frame)
    with pytest.raises(Lost):
        old.done(first.claim, 0, 2)
    assert count(tables, "tokens", number) == 3
    assert count(tables, "deadletters", number) == count(tables, "ingest_ranges", number) == 0
    new.done(second.claim, 0, 2)
    assert new.take(number).base == 3


def rejects(number: int) -> pl.DataFrame:
    return pl.DataFrame({"topic": [TOKENS.topic], "offset": [0], "reason": ["r"], "payload": [b"p"]}).with_columns(
        topic_partition=pl.lit(number, pl.UInt16)
    )


def test_an_insert_of_several_partitions_is_refused_whole_when_one_is_lost(
    tables: Settings, new_partition: NewPartition
) -> None:
    a, b = new_partition(), new_partition()
    mine, other = claimant(tables), claimant(tables)
    claims = [mine.take(a).claim, mine.take(b).claim]
    both = pl.concat([rows(a, range(2)), rows(b, range(2))])
    mine.ledger.insert(claims[::-1], "tokens", both)
    other.take(b)
    with pytest.raises(Lost):
        mine.ledger.insert(claims, "tokens", both)
    assert (count(tables, "tokens", a), count(tables, "tokens", b)) == (2, 2)


def test_another_error_is_not_taken_for_a_lost_claim(tables: Settings, new_partition: NewPartition) -> None:
    mine = claimant(tables)
    claim = mine.take(new_partition()).claim
    with pytest.raises(DatabaseError):
        mine.ledger.insert(
            [claim], "tokens", rows(claim.partition, range(1)).with_columns(pl.lit("no time").alias("time"))
        )


def test_identities_are_those_of_the_minutes_asked_for_below_the_flush(
    tables: Settings, new_partition: NewPartition
) -> None:
    """Asked for in parts: thousands of scattered minutes do not fit into one address."""
    number = new_partition()
    mine = claimant(tables)
    count = 1200
    milliseconds = pl.Series([946_684_800_000 + 180_000 * i for i in range(count)])
    stored = rows(number, range(count)).with_columns(milliseconds.cast(pl.Datetime("ms", "UTC")).alias("time"))
    mine.ledger.insert([mine.take(number).claim], "tokens", stored)
    minutes = [(number, 946_684_800 // 60 + 3 * i) for i in range(count)]
    found = mine.ledger.identities(minutes, {number: count - 100})
    assert found.height == count - 100
    halves = ["identity_hi", "identity_lo"]
    assert set(found.select(halves).iter_rows()) == set(stored.head(count - 100).select(halves).iter_rows())
    assert mine.ledger.identities([(number, 5)], {number: count}).is_empty()


def event(number: int, minutes: int) -> bytes:
    time = f"2025-{1 + minutes % 3:02}-28T00:{minutes % 60:02}:00Z"
    data = '{"gateway":"g","gen_ai.usage.input_tokens":7}'
    return (
        f'{{"specversion":"1.0","type":"{TOKENS.topic}","source":"s","id":"{number}","time":"{time}","data":{data}}}'
    ).encode()


class _Died(Exception):
    pass


def state(tables: Settings, number: int) -> list[object]:
    client = tables.clickhouse_client("viewer")
    return [
        client.query(query.format(number)).result_rows
        for query in (
            "SELECT offset, place, identity FROM tokens WHERE topic_partition = {} ORDER BY ALL",
            "SELECT minute, sum(samples), sum(input_tokens), min(arrived_min) FROM tokens_1m "
            "WHERE topic_partition = {} GROUP BY minute ORDER BY ALL",
            "SELECT minute, sum(samples), sum(requests) FROM usage_1m WHERE topic_partition = {} "
            "GROUP BY minute ORDER BY ALL",
            "SELECT offset, place, reason FROM deadletters WHERE topic_partition = {} ORDER BY ALL",
            "SELECT sum(messages), sum(events), sum(rows), sum(duplicates), sum(rejects), min(first), max(last), "
            "sum(last - first + 1) FROM ingest_ranges WHERE topic_partition = {}",
        )
    ]


@pytest.mark.parametrize("dies_in", range(1, 6))
def test_a_flush_over_months_that_dies_in_any_insert_is_made_good_by_the_next_owner(
    tables: Settings, new_partition: NewPartition, poll: Callable[..., Polled], dies_in: int
) -> None:
    """In the order of raw rows, dead letters, two rollups and the done range."""
    values = [event(i % 90, i) for i in range(100)]
    values[50] = b"broken"

    def flush(position: Position, first: int, last: int, *, through: Flush) -> None:
        polled = poll(TOKENS, values[first : last + 1], first=first, partition=position.claim.partition)
        portion = Portion(position, first, last, [keyed(TOKENS, polled)], 0)
        through.write(through.prepare([portion], lambda: None))

    def flushes(mine: Claimant) -> Flush:
        return Flush(TOKENS, mine.ledger, Seen(1 << 20), lambda _: None)

    clean, number = new_partition(), new_partition()
    mine = claimant(tables)
    flush(mine.take(clean), 0, 99, through=flushes(mine))
    sleeper = claimant(tables)
    inserts = 0
    write = sleeper.ledger.insert

    def dying(claims: list[Claim], table: str, frame: pl.DataFrame) -> None:
        nonlocal inserts
        inserts += 1
        if inserts == dies_in:
            raise _Died
        write(claims, table, frame)

    sleeper.ledger.insert = dying  # type: ignore[method-assign,assignment]
    with pytest.raises(_Died):
        flush(sleeper.take(number), 0, 79, through=flushes(sleeper))
    other = claimant(tables)
    position, through = other.take(number), flushes(other)
    assert position.base == 0
    for first, last in ((0, 39), (40, 89), (90, 99)):  # other stretches than the one that died
        flush(position, first, last, through=through)
    assert state(tables, number) == state(tables, clean)
