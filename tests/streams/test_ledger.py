"""Who owns a partition, where it goes on, and that the server itself refuses who lost it: on the real engine."""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from pipelines.local.processes import wait_until
from schemas.events import TOKENS
from schemas.identity import with_identity
from schemas.settings import Settings
from streams.dedupe import Seen
from streams.flush import Flush, Portion
from streams.intake import keyed
from streams.ledger import Claim, Halt, Ledger, Log, Lost, Position, Range, tag
from streams.polled import Polled

pytestmark = pytest.mark.e2e

NewPartition = Callable[[], int]
LOG = Log("topic-id", 0, 10**6)


def ledger(tables: Settings) -> Ledger:
    return Ledger(partial(tables.clickhouse_client, "writer"), TOKENS, worker=uuid.uuid4())


def take(of: Ledger, number: int, log: Log = LOG, timeout_seconds: float = 10) -> Position:
    outcome = of.take({number: log}, timeout_seconds=timeout_seconds)[number]
    if not isinstance(outcome, Position):
        raise outcome
    return outcome


def done(of: Ledger, claim: Claim, first: int, last: int) -> None:
    of.done({claim.partition: claim}, [Range(claim.partition, first, last, 1, 0, 0, 0, 0, 0, 0)])


def rows(number: int, offsets: range) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "time": [datetime(2026, 1, 1, tzinfo=UTC)] * len(offsets),
            "source": ["s"] * len(offsets),
            "id": [str(offset) for offset in offsets],
            "gateway": ["g"] * len(offsets),
            "arrived": [datetime(2026, 1, 1, tzinfo=UTC)] * len(offsets),
            "offset": list(offsets),
        }
    ).with_columns(topic_partition=pl.lit(number, pl.UInt16), place=pl.lit(0, pl.UInt32))
    return with_identity(TOKENS, frame)


def test_the_highest_claim_owns_and_a_lower_one_writes_nothing(tables: Settings, new_partition: NewPartition) -> None:
    number = new_partition()
    old, new = ledger(tables), ledger(tables)
    first = take(old, number)
    old.insert([first.claim], "tokens", rows(number, range(3)))
    second = take(new, number)
    assert (first.claim.epoch, second.claim.epoch) == (1, 2)
    assert sorted(second.present["offset"]) == [0, 1, 2]
    for table, frame in (("tokens", rows(number, range(3, 6))), ("deadletters", rejects(number))):
        with pytest.raises(Lost):
            old.insert([first.claim], table, frame)
    with pytest.raises(Lost):
        done(old, first.claim, 0, 2)
    assert count(tables, "tokens", number) == 3
    assert count(tables, "deadletters", number) == count(tables, "ingest_ranges", number) == 0
    done(new, second.claim, 0, 2)
    assert take(new, number).base == 3


def test_a_claim_is_held_until_a_higher_one_or_another_topic_of_that_name(
    tables: Settings, new_partition: NewPartition
) -> None:
    one, other = new_partition(), new_partition()
    mine, others = ledger(tables), ledger(tables)
    claims = [take(mine, number).claim for number in (one, other)]
    assert mine.held(claims, LOG.topic_id) == {one, other}
    assert mine.held(claims, "made anew") == mine.held(claims, None) == set()
    take(others, one)
    assert mine.held(claims, LOG.topic_id) == {other}
    take(mine, other)
    assert mine.held(claims, LOG.topic_id) == set(), "a claim of before"


def rejects(number: int) -> pl.DataFrame:
    return pl.DataFrame({"topic": [TOKENS.topic], "offset": [0], "reason": ["r"], "payload": [b"p"]}).with_columns(
        topic_partition=pl.lit(number, pl.UInt16)
    )


def count(tables: Settings, table: str, number: int) -> int:
    client = tables.clickhouse_client("viewer")
    return client.query(f"SELECT count() FROM {table} WHERE topic_partition = {number}").result_rows[0][0]


def test_an_insert_of_several_partitions_is_refused_whole_when_one_is_lost(
    tables: Settings, new_partition: NewPartition
) -> None:
    a, b = new_partition(), new_partition()
    mine, other = ledger(tables), ledger(tables)
    claims = [take(mine, a).claim, take(mine, b).claim]
    both = pl.concat([rows(a, range(2)), rows(b, range(2))])
    mine.insert(claims[::-1], "tokens", both)
    take(other, b)
    with pytest.raises(Lost):
        mine.insert(claims, "tokens", both)
    assert (count(tables, "tokens", a), count(tables, "tokens", b)) == (2, 2)


def test_another_error_is_not_taken_for_a_lost_claim(tables: Settings, new_partition: NewPartition) -> None:
    mine = ledger(tables)
    claim = take(mine, new_partition()).claim
    with pytest.raises(DatabaseError):
        mine.insert([claim], "tokens", rows(claim.partition, range(1)).with_columns(pl.lit("no time").alias("time")))


def slow_insert(tables: Settings, number: int, claim: Claim, seconds: float) -> threading.Thread:
    """An insert of the partition that has passed its fence and still runs."""

    def run() -> None:
        client = tables.clickhouse_client("writer")
        client.command(
            "INSERT INTO tokens (time, source, id, gateway, topic_partition, offset) "
            f"SELECT now64(9), 's', toString(number), 'g', {number}, number FROM numbers({int(seconds * 10)}) "
            f"WHERE sleepEachRow(0.1) = 0 AND {fence}",
            settings={"log_comment": tag(TOKENS.topic, [number]), "max_block_size": 1, "optimize_on_insert": 0},
        )

    fence = ledger(tables).fence([claim])
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def running(tables: Settings, number: int) -> int:
    client = tables.clickhouse_client("writer")
    return client.query(
        "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {tag:String} AND query LIKE 'INSERT%'",
        parameters={"tag": tag(TOKENS.topic, [number])},
    ).result_rows[0][0]


def test_a_take_waits_for_an_insert_that_still_runs(tables: Settings, new_partition: NewPartition) -> None:
    """Without the wait its rows would be missing when the new owner looks, and written twice."""
    number = new_partition()
    old = take(ledger(tables), number)
    thread = slow_insert(tables, number, old.claim, 2)
    wait_until(lambda: running(tables, number) > 0, 20, "the insert is not listed")
    found = take(ledger(tables), number, timeout_seconds=60)
    assert running(tables, number) == 0
    assert found.present.height in (0, 20), "all of it or nothing, and it stays so"
    thread.join()
    assert found.present.height == count(tables, "tokens", number)


def test_a_take_gives_up_on_an_insert_that_runs_too_long(tables: Settings, new_partition: NewPartition) -> None:
    number = new_partition()
    old = take(ledger(tables), number)
    thread = slow_insert(tables, number, old.claim, 3)
    wait_until(lambda: running(tables, number) > 0, 20, "the insert is not listed")
    with pytest.raises(Lost, match="still runs"):
        take(ledger(tables), number, timeout_seconds=0.2)
    thread.join()


def test_partitions_that_are_taken_together_have_each_its_own_outcome(
    tables: Settings, new_partition: NewPartition
) -> None:
    before, claimed = ledger(tables), {}
    busy, made_anew, short, fresh, behind = numbers = [new_partition() for _ in range(5)]
    for number in numbers:
        if number != fresh:
            claimed[number] = take(before, number).claim
    done(before, claimed[short], 0, 99)
    done(before, claimed[behind], 0, 9)
    before.insert([claimed[behind]], "tokens", rows(behind, range(5, 15)))
    before.insert([claimed[made_anew]], "tokens", rows(made_anew, range(7)))
    thread = slow_insert(tables, busy, claimed[busy], 3)
    wait_until(lambda: running(tables, busy) > 0, 20, "the insert is not listed")
    logs = dict.fromkeys(numbers, LOG) | {made_anew: Log("another-id", 0, 9), short: Log("topic-id", 0, 50)}
    found = ledger(tables).take(logs, timeout_seconds=0.2)
    thread.join()
    assert found.keys() == set(numbers)
    assert isinstance(found[busy], Lost)
    assert "recreated" in str(found[made_anew])
    assert "the log ends at 50" in str(found[short])
    new, late = found[fresh], found[behind]
    assert isinstance(new, Position)
    assert isinstance(late, Position)
    assert (new.base, new.present.height, new.claim.epoch) == (0, 0, 1)
    assert (late.base, sorted(late.present["offset"]), late.claim.epoch) == (10, list(range(10, 15)), 2)
    assert late.present.columns == late.rejected.columns == ["offset", "place"]


def test_nothing_to_take_is_nothing(tables: Settings) -> None:
    assert ledger(tables).take({}, timeout_seconds=1) == {}


def test_workers_that_take_the_same_partitions_at_once_share_none(
    tables: Settings, new_partition: NewPartition
) -> None:
    numbers = [new_partition() for _ in range(4)]
    mine, barrier = [ledger(tables) for _ in range(3)], threading.Barrier(3)
    taken: list[dict[int, object]] = []

    def run(one: Ledger, of: list[int]) -> None:
        barrier.wait()
        taken.append(dict(one.take(dict.fromkeys(of, LOG), timeout_seconds=10)))

    shares = (numbers, numbers[1:], numbers[:3])
    threads = [threading.Thread(target=run, args=pair) for pair in zip(mine, shares, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [set[int]() for _ in mine]
    for found in taken:
        claims = [position.claim for position in found.values() if isinstance(position, Position)]
        assert all(isinstance(outcome, Position | Lost) for outcome in found.values())
        held.append(mine[0].held(claims, LOG.topic_id))
    assert sorted(number for of in held for number in of) == sorted(numbers), "each has one owner"


def test_the_insert_of_another_partition_is_not_waited_for(tables: Settings, new_partition: NewPartition) -> None:
    """Partition 1 is no part of the tag of partition 10."""
    number = new_partition()
    claim = take(ledger(tables), number).claim
    thread = slow_insert(tables, number, claim, 3)
    wait_until(lambda: running(tables, number) > 0, 20, "the insert is not listed")
    began = time.monotonic()
    take(ledger(tables), number // 10, timeout_seconds=1)
    assert thread.is_alive() or time.monotonic() - began > 3
    thread.join()


def test_a_partition_that_was_never_read_begins_at_the_start_of_the_log(
    tables: Settings, new_partition: NewPartition
) -> None:
    assert take(ledger(tables), new_partition(), Log("topic-id", 42, 50)).base == 42


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (Log("another-id", 0, 1000), "recreated"),
        (Log("topic-id", 101, 1000), "1 offsets expired unread"),
        (Log("topic-id", 0, 99), "the log ends at 99"),
    ],
)
def test_where_log_and_ledger_contradict_each_other_it_halts_and_says_why(
    tables: Settings, new_partition: NewPartition, log: Log, words: str
) -> None:
    number = new_partition()
    mine = ledger(tables)
    done(mine, take(mine, number).claim, 0, 99)
    for _ in range(2):
        with pytest.raises(Halt, match=words):
            take(mine, number, log)
    assert take(mine, number).base == 100


def test_ranges_with_a_gap_halt(tables: Settings, new_partition: NewPartition) -> None:
    number = new_partition()
    mine = ledger(tables)
    claim = take(mine, number).claim
    done(mine, claim, 0, 9)
    done(mine, claim, 11, 20)
    with pytest.raises(Halt, match="gap or overlap"):
        take(mine, number)


def test_identities_are_those_of_the_minutes_asked_for_below_the_flush(
    tables: Settings, new_partition: NewPartition
) -> None:
    """Asked for in parts: thousands of scattered minutes do not fit into one address."""
    number = new_partition()
    mine = ledger(tables)
    count = 1200
    milliseconds = pl.Series([946_684_800_000 + 180_000 * i for i in range(count)])
    stored = rows(number, range(count)).with_columns(milliseconds.cast(pl.Datetime("ms", "UTC")).alias("time"))
    mine.insert([take(mine, number).claim], "tokens", stored)
    minutes = [(number, 946_684_800 // 60 + 3 * i) for i in range(count)]
    found = mine.identities(minutes, {number: count - 100})
    assert found.height == count - 100
    halves = ["identity_hi", "identity_lo"]
    assert set(found.select(halves).iter_rows()) == set(stored.head(count - 100).select(halves).iter_rows())
    assert mine.identities([(number, 5)], {number: count}).is_empty()


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

    def flushes(mine: Ledger) -> Flush:
        return Flush(TOKENS, mine, Seen(1 << 20), lambda _: None)

    clean, number = new_partition(), new_partition()
    mine = ledger(tables)
    flush(take(mine, clean), 0, 99, through=flushes(mine))
    sleeper = ledger(tables)
    inserts = 0
    write = sleeper.insert

    def dying(claims: list[Claim], table: str, frame: pl.DataFrame) -> None:
        nonlocal inserts
        inserts += 1
        if inserts == dies_in:
            raise _Died
        write(claims, table, frame)

    sleeper.insert = dying  # type: ignore[method-assign,assignment]
    with pytest.raises(_Died):
        flush(take(sleeper, number), 0, 79, through=flushes(sleeper))
    other = ledger(tables)
    position, through = take(other, number), flushes(other)
    assert position.base == 0
    for first, last in ((0, 39), (40, 89), (90, 99)):  # other stretches than the one that died
        flush(position, first, last, through=through)
    assert state(tables, number) == state(tables, clean)
