"""Controls: what guards against doubles, switched off, lets the same faults make them, and the audit finds them.

Else the tests that find none would prove nothing.
"""

import threading
from collections.abc import Callable

import pytest

from pipelines.local.processes import wait_until
from schemas.events import TOKENS
from schemas.settings import Settings
from streams.ledger import Halt, Ledger, Lost, tag
from streams.takes import Takes
from tests.streams.interleaving import Died, Habits, Process, Topic, Worker

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("whole_sweeps")]

LOG = ([[0, 1, 2], [3, 0]], [[4], [5, 4]])


@pytest.fixture
def topic(tables: Settings, new_partition: Callable[[], int]) -> Topic:
    return Topic(TOKENS, tables.clickhouse_client("writer"), (new_partition(), new_partition()), LOG)


def clean(topic: Topic, new_partition: Callable[[], int]) -> dict[str, list]:
    other = Topic(TOKENS, topic.client, (new_partition(), new_partition()), LOG)
    Worker(other, topic.client, Habits()).run()
    return other.state()


def doubles(topic: Topic) -> int:
    """Raw rows that are there more than once."""
    return topic.client.query(
        f"SELECT count() - uniqExact(topic_partition, identity) FROM tokens WHERE topic_partition IN {topic.numbers}"
    ).result_rows[0][0]


def told(worker: Worker) -> str:
    return " ".join(difference.detail for difference in worker.found if difference.subject == TOKENS.name)


def sleep_through_a_take(topic: Topic, step: str) -> tuple[Process, Worker]:
    """A worker about to insert into the table of that step, and the other that has done all since."""
    sleeper = Process(topic, Habits())
    sleeper.go_until(f"INSERT INTO {step} ")
    other = Worker(topic, topic.client, Habits(stretches=[(1, 1, False)]))
    other.run()
    assert other.found == []
    return sleeper, other


STEPS = ("tokens", "tokens_1m", "usage_1m", "ingest_ranges")


@pytest.mark.parametrize("step", STEPS)
def test_a_sleeper_that_wakes_doubles_nothing(topic: Topic, new_partition: Callable[[], int], step: str) -> None:
    sleeper, other = sleep_through_a_take(topic, step)
    sleeper.go(1 << 40)
    assert sleeper.worker.lost == 1
    other.look()
    assert other.found == sleeper.worker.found == []
    assert topic.state() == clean(topic, new_partition)


@pytest.mark.parametrize("step", STEPS)
def test_without_the_fence_a_sleeper_that_wakes_doubles_all_that_it_was_about_to_write(
    topic: Topic, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(Ledger, "fence", lambda *_: "1")
    sleeper, other = sleep_through_a_take(topic, step)
    sleeper.go(1 << 40)
    assert doubles(topic) == (6 if step == "tokens" else 0)
    other.look()
    assert ("rows twice" in told(other)) == (step == "tokens")
    rollups = STEPS[max(1, STEPS.index(step)) : 3] if step != "tokens" else ()  # doubled with raw, they agree with it
    # Whose audit comes first finds them, and mends them: the sleeper's own, which nothing fences either.
    assert set(rollups) <= {difference.subject for difference in [*sleeper.worker.found, *other.found]}
    with pytest.raises(Halt, match="gap or overlap"):  # the sleeper's own range lies over those of the other
        Worker(topic, topic.client, Habits()).run()


@pytest.mark.parametrize("waits", [True, False], ids=["wait on", "wait off"])
def test_an_insert_that_outlives_its_worker_doubles_only_where_the_next_owner_does_not_wait_for_it(
    tables: Settings, topic: Topic, new_partition: Callable[[], int], monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """It has passed its fence when the worker is killed, and writes its rows nine seconds later."""
    if not waits:
        monkeypatch.setattr(Takes, "_wait_for_inserts", lambda *_: dict[int, Lost]())
    # Six rows of one block sleep longer than a block may unless told: the other must be done before they are written.
    long = {"function_sleep_max_microseconds_per_block": 60_000_000}
    killed = Worker(topic, tables.clickhouse_client("writer", settings=long), Habits())
    fence = killed.ledger.fence
    monkeypatch.setattr(killed.ledger, "fence", lambda claims: f"sleepEachRow(1.5) = 0 AND {fence(claims)}")

    def dies(name: str) -> None:
        if name == "before-rollups" and threading.current_thread() is thread:
            raise Died

    def run() -> None:
        with pytest.raises(Died):
            killed.run()

    monkeypatch.setattr("streams.flush.failpoint", dies)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    mine = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {tag:String} AND query LIKE 'INSERT%'"
    name = {"tag": tag(TOKENS.topic, topic.numbers)}
    wait_until(lambda: topic.client.query(mine, parameters=name).result_rows[0][0] > 0, 60, "no insert is running")
    other = Worker(topic, topic.client, Habits())
    other.run()
    thread.join(60)
    other.look()
    if waits:
        assert other.found == []
        assert topic.state() == clean(topic, new_partition)
    else:
        assert "rows twice" in told(other)
        assert sum(difference.present - difference.expected for difference in other.found) == 6


@pytest.mark.parametrize("dedupe", [True, False], ids=["dedupe on", "dedupe off"])
def test_an_event_that_is_sent_again_doubles_only_without_the_dedupe(topic: Topic, dedupe: bool) -> None:
    """The ledger counts what was accepted: of an identity that is there again only `verify` tells."""
    Worker(topic, topic.client, Habits(dedupe=dedupe)).run()
    assert doubles(topic) == (0 if dedupe else 2)
