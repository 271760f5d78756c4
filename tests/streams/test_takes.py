"""Who owns a partition, and where it goes on: on the real engine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from pipelines.local.processes import wait_until
from schemas.events import TOKENS
from schemas.settings import Settings
from streams.ledger import Claim, Halt, Lost, Position, tag
from streams.takes import Log
from tests.streams.claimant import LOG, Claimant, NewPartition, claimant, count, rows

pytestmark = pytest.mark.e2e


def test_a_claim_is_held_until_a_higher_one_or_another_topic_of_that_name(
    tables: Settings, new_partition: NewPartition
) -> None:
    one, other = new_partition(), new_partition()
    mine, others = claimant(tables), claimant(tables)
    claims = [mine.take(number).claim for number in (one, other)]
    assert mine.takes.held(claims, LOG.topic_id) == {one, other}
    assert mine.takes.held(claims, "made anew") == mine.takes.held(claims, None) == set()
    others.take(one)
    assert mine.takes.held(claims, LOG.topic_id) == {other}
    mine.take(other)
    assert mine.takes.held(claims, LOG.topic_id) == set(), "a claim of before"


def slow_insert(tables: Settings, number: int, claim: Claim, seconds: float) -> threading.Thread:
    """An insert of the partition that has passed its fence and still runs."""

    def run() -> None:
        client = tables.clickhouse_client("writer")
        with suppress(DatabaseError):  # it was killed
            client.command(
                "INSERT INTO tokens (time, source, id, gateway, topic_partition, offset) "
                f"SELECT now64(9), 's', toString(number), 'g', {number}, number FROM numbers({int(seconds * 10)}) "
                f"WHERE sleepEachRow(0.1) = 0 AND {fence}",
                settings={"log_comment": tag(TOKENS.topic, [number]), "max_block_size": 1, "optimize_on_insert": 0},
            )

    fence = claimant(tables).ledger.fence([claim])
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: running(tables, number) > 0, 60, "the insert is not listed")
    return thread


@contextmanager
def inserting(tables: Settings, number: int, claim: Claim) -> Iterator[threading.Thread]:
    """Meanwhile an insert of the partition runs that would take a minute, so that it runs whenever it is looked at."""
    thread = slow_insert(tables, number, claim, 60)
    try:
        yield thread
    finally:
        killer = tables.clickhouse_client("writer")
        killer.command(f"KILL QUERY WHERE Settings['log_comment'] = '{tag(TOKENS.topic, [number])}' ASYNC")
        thread.join()  # it ends with its insert


def running(tables: Settings, number: int) -> int:
    client = tables.clickhouse_client("writer")
    return client.query(
        "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {tag:String} AND query LIKE 'INSERT%'",
        parameters={"tag": tag(TOKENS.topic, [number])},
    ).result_rows[0][0]


def test_a_take_waits_for_an_insert_that_still_runs(tables: Settings, new_partition: NewPartition) -> None:
    """Without the wait its rows would be missing when the new owner looks, and written twice."""
    number = new_partition()
    old = claimant(tables).take(number)
    thread = slow_insert(tables, number, old.claim, 8)
    found = claimant(tables).take(number, timeout_seconds=60)
    assert running(tables, number) == 0
    assert found.present.height in (0, 80), "all of it or nothing, and it stays so"
    thread.join()
    assert found.present.height == count(tables, "tokens", number)


def test_a_take_gives_up_on_an_insert_that_runs_too_long(tables: Settings, new_partition: NewPartition) -> None:
    number = new_partition()
    old = claimant(tables).take(number)
    with inserting(tables, number, old.claim), pytest.raises(Lost, match="still runs"):
        claimant(tables).take(number, timeout_seconds=0.2)


def test_partitions_that_are_taken_together_have_each_its_own_outcome(
    tables: Settings, new_partition: NewPartition
) -> None:
    before, claimed = claimant(tables), {}
    busy, made_anew, short, fresh, behind = numbers = [new_partition() for _ in range(5)]
    for number in numbers:
        if number != fresh:
            claimed[number] = before.take(number).claim
    before.done(claimed[short], 0, 99)
    before.done(claimed[behind], 0, 9)
    before.ledger.insert([claimed[behind]], "tokens", rows(behind, range(5, 15)))
    before.ledger.insert([claimed[made_anew]], "tokens", rows(made_anew, range(7)))
    logs = dict.fromkeys(numbers, LOG) | {made_anew: Log("another-id", 0, 9), short: Log("topic-id", 0, 50)}
    with inserting(tables, busy, claimed[busy]):
        found = claimant(tables).takes.take(logs, timeout_seconds=0.2)
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
    assert claimant(tables).takes.take({}, timeout_seconds=1) == {}


def test_workers_that_take_the_same_partitions_at_once_share_none(
    tables: Settings, new_partition: NewPartition
) -> None:
    numbers = [new_partition() for _ in range(4)]
    mine, barrier = [claimant(tables) for _ in range(3)], threading.Barrier(3)
    taken: list[dict[int, object]] = []

    def run(one: Claimant, of: list[int]) -> None:
        barrier.wait()
        taken.append(dict(one.takes.take(dict.fromkeys(of, LOG), timeout_seconds=10)))

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
        held.append(mine[0].takes.held(claims, LOG.topic_id))
    assert sorted(number for of in held for number in of) == sorted(numbers), "each has one owner"


def test_the_insert_of_another_partition_is_not_waited_for(tables: Settings, new_partition: NewPartition) -> None:
    """Partition 1 is no part of the tag of partition 10."""
    number = new_partition()
    claim = claimant(tables).take(number).claim
    with inserting(tables, number, claim) as thread:
        claimant(tables).take(number // 10, timeout_seconds=1)
        assert thread.is_alive()


def test_a_partition_that_was_never_read_begins_at_the_start_of_the_log(
    tables: Settings, new_partition: NewPartition
) -> None:
    assert claimant(tables).take(new_partition(), Log("topic-id", 42, 50)).base == 42


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
    mine = claimant(tables)
    mine.done(mine.take(number).claim, 0, 99)
    for _ in range(2):
        with pytest.raises(Halt, match=words):
            mine.take(number, log)
    assert mine.take(number).base == 100


def test_ranges_with_a_gap_halt(tables: Settings, new_partition: NewPartition) -> None:
    number = new_partition()
    mine = claimant(tables)
    claim = mine.take(number).claim
    mine.done(claim, 0, 9)
    mine.done(claim, 11, 20)
    with pytest.raises(Halt, match="gap or overlap"):
        mine.take(number)
