"""Workers on the real engine that stand still before each statement they send, until they are let go on, or die there.

So that any two of them can be interleaved at every step: the read of the highest claim, the claim, the look at each
table, each insert, the done range, each question of the audit.
"""

import re
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, repeat
from typing import Any, cast

import orjson
import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.events import POWER, TOKENS, EventType
from schemas.tables import ROLLUPS
from streams.audit import Audit
from streams.audit_raw import Difference
from streams.dedupe import Seen
from streams.flush import Flush, Portion, Prepared
from streams.intake import keyed
from streams.ledger import Ledger, Lost, Position
from streams.polled import Polled, Run
from streams.takes import Log, Takes

TIMES = ("10-31T23:59:30", "10-31T23:59:50", "11-01T00:00:10", "11-30T23:59:59", "12-01T00:00:00", "12-01T00:40:00")
"""When the events happen: event number n at TIMES[n], so that few minutes of three months have several."""
MONTHS = (202510, 202511, 202512)
ARRIVED_MS = 1_767_225_600_000  # 2026-01-01
STANDSTILL_SECONDS = 60

# Pieces of the log: each message is a list of event numbers, None for one that can't be read.
Message = Sequence[int | None]


class Died(BaseException):
    """Stands for kill -9: nothing catches it."""


def text(event_type: EventType, partition: int, number: int) -> bytes:
    """One event: the same bytes each time it is sent."""
    event: dict[str, Any] = {"specversion": "1.0", "type": event_type.topic, "source": f"s{partition}"}
    event |= {"id": str(number), "time": f"2025-{TIMES[number]}.{number:09}Z"}
    if event_type is POWER:
        data: dict[str, Any] = {"site": f"s{partition}", "meter": f"m{number % 2}", "role": "it"}
        data |= {"hw.power": 0.1 * number, "hw.energy": 100.0 + number} if number % 3 else {"hw.temperature": 20.0}
    else:
        assert event_type is TOKENS
        data = {"gateway": "g", "gen_ai.request.model": f"m{number % 2}", "duration": 0.001 * 9**number, "requests": 2}
        data |= {"gen_ai.usage.input_tokens": 10**number} if number % 3 else {"error.type": "timeout"}
    return orjson.dumps(event | {"data": data})


@dataclass(frozen=True)
class Topic:
    """The log of a topic of two partitions that one example has to itself, and what its tables say of them."""

    event_type: EventType
    client: Client
    numbers: tuple[int, int]
    """The partitions' numbers in the tables."""
    messages: tuple[Sequence[Message], Sequence[Message]]

    def offset(self, at: int) -> int:
        """Of the message at that place of the log: every third offset has none, as behind a transaction."""
        return at + at // 2

    def log(self, which: int) -> Log:
        return Log("topic-id", 0, self.offset(len(self.messages[which])))

    def polled(self, which: int, first: int, last: int) -> Polled:
        """The messages from offset ``first`` to ``last``."""
        found = [at for at in range(len(self.messages[which])) if first <= self.offset(at) <= last]
        values: list[bytes | None] = []
        for at in found:
            events = [b"5" if n is None else text(self.event_type, which, n) for n in self.messages[which][at]]
            values.append(b"[" + b",".join(events) + b"]")
        offsets = [self.offset(at) for at in found]
        arrived = [ARRIVED_MS + offset for offset in offsets]
        run = Run(self.event_type.topic, self.numbers[which], first)
        return Polled(run, first, values, [b"key"] * len(values), [None] * len(values), offsets, arrived)

    def read(self, number: int, first: int, last: int) -> Polled:
        return self.polled(self.numbers.index(number), first, last)

    def state(self) -> dict[str, list[Any]]:
        """All that readers see of each partition."""
        raw = "SELECT * EXCEPT topic_partition FROM {} WHERE topic_partition = {} ORDER BY offset, place"
        found = {
            self.event_type.name: [self._rows(raw.format(self.event_type.name, number)) for number in self.numbers]
        }
        for table in ROLLUPS[self.event_type.name]:
            rows = "SELECT * EXCEPT (topic_partition, upto) FROM {} FINAL WHERE topic_partition = {}"
            found[table] = [sorted(self._rows(rows.format(table, n)), key=repr) for n in self.numbers]
        dead = "SELECT * EXCEPT topic_partition FROM deadletters WHERE topic_partition = {} ORDER BY offset, place"
        done = (
            "SELECT min(first), max(last), sum(last - first + 1), sum(messages), sum(events), sum(rows), "
            "sum(duplicates), sum(rejects), sum(checksum) FROM ingest_ranges WHERE topic_partition = {}"
        )
        found["deadletters"] = [self._rows(dead.format(number)) for number in self.numbers]
        found["ingest_ranges"] = [self._rows(done.format(number)) for number in self.numbers]
        return found

    def totals(self) -> dict[str, list[Any]]:
        """The same without where in the log an event was, and when it arrived."""
        state = self.state()
        events = f"SELECT {', '.join(self.event_type.columns)}, identity FROM {self.event_type.name}"
        state[self.event_type.name] = [
            sorted(self._rows(f"{events} WHERE topic_partition = {number}"), key=repr) for number in self.numbers
        ]
        for table in ROLLUPS[self.event_type.name]:
            rows = "SELECT * EXCEPT (topic_partition, upto, arrived_min) FROM {} FINAL WHERE topic_partition = {}"
            state[table] = [sorted(self._rows(rows.format(table, n)), key=repr) for n in self.numbers]
        state["deadletters"] = [sorted(row[-1] for row in rows) for rows in state["deadletters"]]
        state["ingest_ranges"] = [row[0][4:] for row in state["ingest_ranges"]]
        return state

    def _rows(self, query: str) -> list[Any]:
        return list(self.client.query(query).result_rows)


@dataclass
class Habits:
    """How a worker goes about its work."""

    partitions: Collection[int] = (0, 1)
    stretches: Sequence[tuple[int, int, bool]] = ()
    """By flush: how many messages of each partition, and whether to audit after it; then all that is left."""
    budget: int = 1 << 20
    """Bytes for identities."""
    ahead: bool = False
    """Whether it prepares the next flush before it writes the one before."""
    dedupe: bool = True


class Worker:
    """Does what the sink does, in one thread: takes, flushes, audits; after any trouble it takes again."""

    def __init__(self, topic: Topic, client: Client, habits: Habits) -> None:
        self.topic, self.habits = topic, habits
        self.ledger = Ledger(lambda: client, topic.event_type)
        self.takes = Takes(lambda: client, topic.event_type, worker=uuid.uuid4())
        self.seen = Seen(habits.budget)
        self.published: list[tuple[int, int, int]] = []
        seen = self.seen if habits.dedupe else None
        self.flush = Flush(topic.event_type, self.ledger, seen, self._publish)
        self.audit = Audit(topic.event_type, lambda: client, self.ledger, topic.read, dedupe=habits.dedupe)
        self.found: list[Difference] = []
        self.lost = 0
        self._positions: dict[int, Position] = {}
        self._next: dict[int, int] = {}
        self._writing: Prepared | None = None

    def run(self) -> None:
        """Until all of its partitions is done; then one more audit."""
        stretches = chain(self.habits.stretches, repeat((1 << 20, 1 << 20, False)))
        while True:
            try:
                self._take_missing()
                if not (portions := self._portions(next(stretches))):
                    self._settle()
                    self.look()
                    return
                prepared = self.flush.prepare(portions, self._settle)
                self._settle()
                self._writing = prepared
                if not self.habits.ahead:
                    self._settle()
            except Lost:
                self.lost += 1
                self._positions.clear()
                self._writing = None

    def _publish(self, rows: pl.DataFrame) -> None:
        self.published += rows.select("topic_partition", "offset", "place").rows()

    def _take_missing(self) -> None:
        missing = sorted(set(self.habits.partitions) - self._positions.keys())
        if not missing:
            return
        self._settle()
        for which in missing:
            self.seen.forget(self.topic.numbers[which])
        taken = self.takes.take({self.topic.numbers[w]: self.topic.log(w) for w in missing}, timeout_seconds=20)
        for which in missing:
            position = taken[self.topic.numbers[which]]
            if not isinstance(position, Position):
                raise position
            self._positions[which], self._next[which] = position, position.base

    def _portions(self, stretch: tuple[int, int, bool]) -> list[Portion]:
        *lengths, audit = stretch
        if audit:
            self._settle()
            self.look()
        if not any(lengths[which] for which in self._positions):
            lengths = [1, 1]
        portions: list[Portion] = []
        for which, position in self._positions.items():
            offsets = self.topic.polled(which, self._next[which], 1 << 40).offsets[: lengths[which]]
            if offsets:
                first, last = self._next[which], offsets[-1]
                intakes = [keyed(self.topic.event_type, self.topic.polled(which, first, last))]
                portions.append(Portion(position, first, last, intakes, ARRIVED_MS + last))
                self._next[which] = last + 1
        return portions

    def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            self.flush.write(writing)

    def look(self) -> None:
        """Audits the partitions where nothing unfinished is left of before, as the sink does."""
        sound = [which for which, position in self._positions.items() if self._next[which] >= position.reach]
        claims = {self.topic.numbers[which]: self._positions[which].claim for which in sound}
        whole = False
        while not whole:
            found, whole = self.audit.run(claims, {self.topic.numbers[which]: self._next[which] for which in sound})
            self.found += found


class Process:
    """A worker in a thread of its own, which stands before each statement until it is let go on or dies there."""

    def __init__(self, topic: Topic, habits: Habits) -> None:
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._left = 0
        self._landing: Collection[int] | None = None
        self._raised: BaseException | None = None
        self.statement = ""
        self.ended = False
        self.worker = Worker(topic, cast(Client, _Stepping(topic.client, self._gate)), habits)
        threading.Thread(target=self._run, daemon=True).start()
        self._wait()

    def go(self, statements: int) -> None:
        """Let it send so many statements, or all that it has."""
        if not self.ended:
            self._left = statements
            self._go.release()
            self._wait()

    def go_until(self, beginning: str) -> None:
        """Let it go on until it stands before a statement that begins so."""
        while not self.statement.startswith(beginning):
            assert not self.ended, f"it sends no {beginning}"
            self.go(1)

    def die(self, months: Collection[int] = ()) -> None:
        """Here; of an insert that it was about to send, the parts of these months land."""
        if not self.ended:
            self._landing = months
            self.go(0)

    def _wait(self) -> None:
        assert self._stands.acquire(timeout=STANDSTILL_SECONDS), "the worker neither stands nor ends"
        if self._raised is not None:
            raise self._raised

    def _run(self) -> None:
        try:
            self.worker.run()
        except Died:
            pass
        except BaseException as error:
            self._raised = error
        finally:
            self.ended = True
            self._stands.release()

    def _gate(self, statement: str, send: Callable[[str], Any]) -> Any:
        if self._left == 0:
            self.statement = statement
            self._stands.release()
            self._go.acquire()
        if self._landing is not None:
            self._land(statement, send)
            raise Died
        self._left -= 1
        return send(statement)

    def _land(self, statement: str, send: Callable[[str], Any]) -> None:
        """A block over several months becomes a part a month, and a server that dies writes some of them."""
        of = re.match(r"INSERT INTO (\w+)", statement)
        if not of or not self._landing:
            return
        if of[1] in ("claims", "ingest_ranges", "deadletters", "audits"):  # one part, which lands or doesn't
            send(statement)
        else:
            column = "minute" if of[1].endswith("_1m") else "time"
            some = f" AND toYYYYMM({column}) IN ({', '.join(map(str, self._landing))}) FORMAT ArrowStream"
            send(statement.replace(" FORMAT ArrowStream", some))


class _Stepping:
    """A client whose statements pass a gate; the columns of the tables are asked once and for all."""

    def __init__(self, client: Client, gate: Callable[[str, Callable[[str], Any]], Any]) -> None:
        self._client, self._gate = client, gate

    def query(self, query: str, **more: Any) -> Any:
        if "system.columns" in query:
            return _columns(self._client, query, *more.get("parameters", {}).items())
        return self._gate(query, partial(self._client.query, **more))

    def query_arrow(self, query: str, **more: Any) -> Any:
        return self._gate(query, partial(self._client.query_arrow, **more))

    def command(self, cmd: str, **more: Any) -> Any:
        return self._gate(cmd, partial(self._client.command, **more))

    def raw_insert(self, *, insert_block: Any, transport_settings: Any, **more: Any) -> Any:
        """A statement and its data, of which the gate may change the statement."""
        statement, data = insert_block

        def send(statement: str) -> Any:
            head = statement.encode()
            length = {"Content-Length": str(len(head) + len(data))}
            return self._client.raw_insert(insert_block=iter((head, data)), transport_settings=length, **more)  # pyright: ignore[reportArgumentType]

        return self._gate(statement.decode(), send)


@cache
def _columns(client: Client, query: str, *parameters: tuple[str, str]) -> Any:
    return client.query(query, parameters=dict(parameters))
