"""Whatever happened on the way, the tables are those of one clean run: on the real engine, at every statement.

Any split into flushes, any duplication, any death at any statement (of an insert over months, after any of its parts),
any two workers interleaved at every statement, audits in between, rows doubled behind their back, any memory for
identities. ``pytest tests/streams/test_histories.py --fuzz-examples 100000 -rP`` is the long run (docs/reliability.md).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import strategies as st

from schemas.events import POWER, TOKENS, EventType
from schemas.settings import Settings
from schemas.tables import ROLLUPS
from tests.streams.interleaving import MONTHS, TIMES, Habits, Message, Process, Topic, Worker

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("whole_sweeps")]

# Of the inputs of other tests, which take a millisecond where a history takes a second.
PART = 0.01
LONGEST_SECONDS = 60.0


@dataclass(frozen=True)
class Step:
    """Let a process send so many statements; then what happens to it, or to the tables."""

    who: int
    statements: int
    then: Literal["goes on", "dies", "raw doubled", "rollup doubled"]
    landing: frozenset[int]


messages = st.lists(st.none() | st.integers(0, len(TIMES) - 1), max_size=4)
logs = st.tuples(*[st.lists(messages, min_size=1, max_size=7)] * 2)
habits = st.builds(
    Habits,
    partitions=st.sampled_from([(0, 1), (0, 1), (0, 1), (0,), (1,)]),
    stretches=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=4),
    budget=st.sampled_from([0, 350, 1000, 1 << 20]),
    ahead=st.booleans(),
)
steps = st.builds(
    Step,
    who=st.integers(0, 1),
    statements=st.integers(1, 40),
    then=st.sampled_from(["goes on", "goes on", "goes on", "dies", "dies", "dies", "raw doubled", "rollup doubled"]),
    landing=st.sets(st.sampled_from(MONTHS)).map(frozenset),
)
histories = st.tuples(logs, st.lists(habits, min_size=2, max_size=2), st.lists(steps, max_size=10))


@pytest.fixture(scope="module")
def client(tables: Settings) -> Client:
    return tables.clickhouse_client("writer")


def clean(event_type: EventType, client: Client, numbers: tuple[int, int], log: tuple) -> Topic:
    """The same log in partitions of its own, read in one go."""
    topic = Topic(event_type, client, numbers, log)
    Worker(topic, client, Habits()).run()
    return topic


def double(topic: Topic, table: str) -> None:
    """One row again; of a rollup marked as from a mending, one that was wrong."""
    columns = "*" if table == topic.event_type.name else "* REPLACE (-1 AS upto)"
    topic.client.command(
        f"INSERT INTO {table} SELECT {columns} FROM {table} WHERE topic_partition IN {topic.numbers} LIMIT 1"
    )


@pytest.mark.parametrize("event_type", [TOKENS, POWER], ids=lambda event_type: event_type.name)
def test_any_history_leaves_the_tables_of_one_clean_run(
    client: Client, new_partition: Callable[[], int], fuzz: Callable[..., None], event_type: EventType
) -> None:
    def check(history: tuple[tuple[list[Message], list[Message]], list[Habits], list[Step]]) -> None:
        log, habits, plan = history
        topic = Topic(event_type, client, (new_partition(), new_partition()), log)
        processes = [Process(topic, habit) for habit in habits]
        dead: list[Process] = []
        doubled = False
        for step in plan:
            processes[step.who].go(step.statements)
            if step.then == "dies":
                processes[step.who].die(step.landing)
                dead.append(processes[step.who])
                processes[step.who] = Process(topic, habits[step.who])
            elif step.then != "goes on":
                doubled = True
                double(topic, event_type.name if step.then == "raw doubled" else ROLLUPS[event_type.name][0])
        for process in processes:  # the second may hold claims that are not the highest any more
            process.go(1 << 40)
            assert process.ended
        last = Worker(topic, client, Habits())
        last.run()
        looks = 1
        while doubled and last.found and looks < 3:  # what it mended it looks at again
            last.found.clear()
            last.run()
            looks += 1
        assert last.found == []
        workers = [last, *(process.worker for process in [*dead, *processes])]
        assert doubled or not any(worker.found for worker in workers)
        found = topic.state()
        wanted = clean(event_type, client, (new_partition(), new_partition()), log)
        assert found == wanted.state()
        published = {position for worker in workers for position in worker.published}
        dead_letters = client.query(
            f"SELECT topic_partition, offset, place FROM deadletters WHERE topic_partition IN {topic.numbers}"
        ).result_rows
        assert published == set(dead_letters)

    fuzz(histories, check, PART, LONGEST_SECONDS, time.monotonic)


def test_an_audit_sees_what_happened_within_a_second_before_the_minute_ends(
    client: Client, new_partition: Callable[[], int]
) -> None:
    """A part that begins there: ClickHouse passes over it where the bound of the minute is a DateTime."""
    topic = Topic(TOKENS, client, (new_partition(), new_partition()), ([[3]], [[3], [2]]))
    worker = Worker(topic, client, Habits(stretches=[(1, 1, True)] * 3))
    worker.run()
    assert worker.found == []


reordered = st.tuples(*[st.lists(st.none() | st.integers(0, len(TIMES) - 1), max_size=12)] * 2).flatmap(
    lambda logs: st.tuples(*[st.tuples(st.just(log), st.permutations(log)) for log in logs])
)


@pytest.mark.parametrize("event_type", [TOKENS, POWER], ids=lambda event_type: event_type.name)
def test_producers_that_come_in_another_order_leave_the_same_totals(
    client: Client, new_partition: Callable[[], int], fuzz: Callable[..., None], event_type: EventType
) -> None:
    def split(events: list[int | None], size: int) -> list[list[int | None]]:
        return [events[at : at + size] for at in range(0, len(events), size)]

    def check(drawn: tuple[tuple, list[int], Habits]) -> None:
        orders, sizes, habits = drawn
        found: list[dict] = []
        for way, size in enumerate(sizes):
            log = tuple(split(order[way], size) for order in orders)
            topic = Topic(event_type, client, (new_partition(), new_partition()), log)
            Worker(topic, client, habits).run()
            found.append(topic.totals())
        assert found[0] == found[1]

    sizes = st.lists(st.integers(1, 5), min_size=2, max_size=2)
    both = habits.map(lambda habit: Habits((0, 1), habit.stretches, habit.budget, habit.ahead))
    fuzz(st.tuples(reordered, sizes, both), check, PART, LONGEST_SECONDS, time.monotonic)
