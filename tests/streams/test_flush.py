"""Any death between the steps of a flush, and any other stretch after it, leaves the same tables as one clean run.

In memory, so that thousands can be tried: ``--fuzz-examples``. The same on the real engine, at every statement, is in
test_histories.py.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import cast
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import strategies as st
from pyarrow import ipc

from schemas.events import POWER
from schemas.identity import with_identity
from streams import flush
from streams.dedupe import Seen
from streams.flush import Flush, Portion
from streams.inserts import Encoded, encode
from streams.intake import Intake
from streams.ledger import Claim, Ledger, Lost, Position, Range
from streams.rejects import SCHEMA

PARTITIONS = 2
OFFSETS = 8


class Died(Exception):
    """Stands for kill -9."""


def decoded(rows: Encoded) -> pl.DataFrame:
    """The rows as the server reads them, an identity as its halves again."""
    table = ipc.open_stream(rows.body).read_all()
    if "identity" not in table.column_names:
        return pl.DataFrame(pl.from_arrow(table))
    halves = np.frombuffer(b"".join(table.column("identity").to_pylist()), ">u8").reshape(-1, 2).astype(np.uint64)
    frame = pl.DataFrame(pl.from_arrow(table.drop_columns("identity")))
    return frame.with_columns(identity_hi=pl.Series(halves[:, 0]), identity_lo=pl.Series(halves[:, 1]))


class MemoryLedger:
    """The ledger and the tables it guards, in memory; who uses it may die in an insert, after some of its months."""

    def __init__(self) -> None:
        self.tables: dict[str, list[pl.DataFrame]] = {}
        self.epochs: dict[int, int] = {}
        self.ranges: dict[int, list[Range]] = {}
        self.dies_in = -1
        self.months = 0

    def take(self, partition: int) -> Position:
        self.epochs[partition] = self.epochs.get(partition, 0) + 1
        claim = Claim(POWER.topic, "id", partition, self.epochs[partition], uuid.UUID(int=0))
        base = self.ranges[partition][-1].last + 1 if self.ranges.get(partition) else 0
        past = (pl.col("topic_partition") == partition) & (pl.col("offset") >= base)
        there = {
            table: pl.concat([pl.DataFrame(schema={"offset": pl.Int64, "place": pl.UInt32}), *parts])
            for table in ("power", "deadletters")
            for parts in [[part.filter(past).select("offset", "place") for part in self.tables.get(table, [])]]
        }
        upto: dict[tuple[str, int], int] = {}
        for part in self.tables.get("power_1m", []):
            for minute, last in (
                part.filter(pl.col("topic_partition") == partition).select("minute", "upto").iter_rows()
            ):
                key = ("power_1m", minute.year * 100 + minute.month)
                if last >= base:
                    upto[key] = max(upto.get(key, last), last)
        return Position(claim, base, there["power"], there["deadletters"], upto)

    def insert(self, claims: Sequence[Claim], table: str, encoded: Encoded) -> None:
        if any(self.epochs[claim.partition] != claim.epoch for claim in claims):
            raise Lost("fenced")
        if not encoded.height:
            return
        rows = decoded(encoded)
        self.dies_in -= 1
        if self.dies_in == 0:
            if table in ("power", "power_1m") and self.months:  # a block over several months lands month by month
                month = pl.col("time" if table == "power" else "minute").dt.month()
                months = rows.select(month.unique().sort()).to_series().to_list()[: self.months]
                self.tables.setdefault(table, []).append(rows.filter(month.is_in(months)))
            raise Died
        self.tables.setdefault(table, []).append(rows)

    def done(self, claims: Mapping[int, Claim], ranges: Sequence[Range]) -> None:
        self.insert(list(claims.values()), "ingest_ranges", encode(pl.DataFrame({"n": [len(ranges)]})))
        for done in ranges:
            before = self.ranges.setdefault(done.partition, [])
            assert done.first == (before[-1].last + 1 if before else 0), "ranges are contiguous"
            before.append(done)

    def identities(self, minutes: Sequence[tuple[int, int]], before: Mapping[int, int]) -> pl.DataFrame:
        if "power" not in self.tables:
            names = {
                "topic_partition": pl.UInt16,
                "minute": pl.Int64,
                "identity_hi": pl.UInt64,
                "identity_lo": pl.UInt64,
            }
            return pl.DataFrame(schema=names)
        wanted = pl.DataFrame(minutes, schema={"topic_partition": pl.UInt16, "minute": pl.Int64}, orient="row")
        raw = pl.concat(self.tables["power"])
        below = pl.col("offset") < pl.col("topic_partition").cast(pl.Int64).replace_strict(before, default=0)
        keyed = raw.filter(below).with_columns(minute=pl.col("time").dt.epoch("s").floordiv(60))
        return keyed.join(wanted, on=["topic_partition", "minute"], how="semi").select(
            "topic_partition", "minute", "identity_hi", "identity_lo"
        )

    def state(self) -> tuple[object, ...]:
        """What readers see: rows of raw and dead letters, sums of the rollup, sums of the ledger."""
        raw = pl.concat(self.tables["power"]) if "power" in self.tables else pl.DataFrame()
        dead = pl.concat(self.tables["deadletters"]) if "deadletters" in self.tables else pl.DataFrame()
        key = ["topic_partition", "offset", "place"]
        rollup: list[tuple[object, ...]] = []
        if "power_1m" in self.tables:
            rollup = (
                pl.concat(self.tables["power_1m"])
                .group_by("topic_partition", "minute", "site", "meter")
                .agg(pl.col("samples", "milliwatts").sum(), pl.col("watts_min").min(), pl.col("arrived_min").min())
                .with_columns(pl.col(pl.Categorical).cast(pl.String))
                .sort("topic_partition", "minute", "site", "meter")
                .rows()
            )
        counted = ("messages", "events", "rows", "duplicates", "rejects")
        ledger = {
            partition: (ranges[-1].last, *(sum(getattr(r, c) for r in ranges) for c in counted))
            for partition, ranges in self.ranges.items()
        }
        return (
            sorted(raw.select(*key, "identity_lo").rows()) if raw.height else [],
            sorted(dead.select(key).rows()) if dead.height else [],
            rollup,
            ledger,
        )


# Few identities, so that they repeat, over the ends of three months; None is a dead letter.
START = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
event = st.none() | st.tuples(st.integers(0, 2), st.sampled_from([0, 30, 90, 28 * 86_400, 28 * 86_400 + 90]))
logs = st.lists(
    st.lists(st.lists(event, max_size=3), min_size=OFFSETS, max_size=OFFSETS),
    min_size=PARTITIONS,
    max_size=PARTITIONS,
)


def intake(offset: int, events: list[tuple[int, int] | None]) -> Intake:
    arrived = pl.lit(datetime(2026, 4, 1, tzinfo=UTC)).cast(pl.Datetime("ms", "UTC"))
    rows = [
        {"time": START + timedelta(seconds=e[1]), "site": "s", "meter": str(e[0]), "watts": float(e[0]), "place": place}
        for place, e in enumerate(events)
        if e is not None
    ]
    frame = pl.DataFrame(rows, schema={**POWER.frame_schema, "place": pl.UInt32()}).with_columns(
        pl.col(pl.String).fill_null(""), pl.lit(offset, pl.Int64).alias("offset"), arrived=arrived
    )
    dead = [place for place, e in enumerate(events) if e is None]
    rejects = pl.DataFrame({"place": dead}, schema={"place": pl.UInt32}).select(
        pl.lit(offset, pl.Int64).alias("offset")
        if c == "offset"
        else pl.col(c)
        if c == "place"
        else pl.lit(None, t).alias(c)
        for c, t in SCHEMA.items()
    )
    return Intake(with_identity(POWER, frame), rejects, 1)


class Worker:
    """Flushes stretches of the log as the sink does: takes again after any trouble."""

    def __init__(self, ledger: MemoryLedger, log: list[list[list]], budget: int = 1 << 20) -> None:
        self.ledger, self.log = ledger, log
        self.seen = Seen(budget)
        self.published: list[pl.DataFrame] = []
        typed: Ledger = ledger  # type: ignore[assignment]
        self.flush = Flush(POWER, typed, self.seen, self.published.append)
        self.positions: dict[int, Position] = {}
        self.next: dict[int, int] = {}

    def take(self, partition: int) -> None:
        self.seen.forget(partition)
        self.positions[partition] = self.ledger.take(partition)
        self.next[partition] = self.positions[partition].base

    def portions(self, lengths: Sequence[int]) -> list[Portion]:
        """The next so many offsets of each partition."""
        portions: list[Portion] = []
        for partition, length in enumerate(lengths):
            if partition not in self.positions:
                self.take(partition)
            first = self.next[partition]
            last = min(first + length, OFFSETS) - 1
            if last >= first:
                intakes = [intake(offset, self.log[partition][offset]) for offset in range(first, last + 1)]
                portions.append(Portion(self.positions[partition], first, last, intakes, 0))
                self.next[partition] = last + 1
        return portions

    def step(self, lengths: Sequence[int]) -> None:
        """Flush them."""
        portions = self.portions(lengths)
        if not portions:
            return
        try:
            self.flush.write(self.flush.prepare(portions, lambda: None))
        except Lost:
            self.positions.clear()

    def finish(self) -> None:
        while any(self.next.get(partition, 0) < OFFSETS for partition in range(PARTITIONS)):
            self.step([OFFSETS] * PARTITIONS)


def clean(log: list[list[list]]) -> tuple[object, ...]:
    worker = Worker(MemoryLedger(), log)
    worker.finish()
    return worker.ledger.state()


# Of the inputs of other tests.
PART = 0.2
stretches = st.tuples(*[st.integers(0, 4)] * PARTITIONS)


def test_any_deaths_and_stretches_leave_the_tables_of_one_clean_run(fuzz: Callable[..., None]) -> None:
    def check(drawn: tuple[list, list]) -> None:
        log, plan = drawn
        ledger = MemoryLedger()
        worker = Worker(ledger, log)
        for lengths, dies_in, months in plan:
            ledger.dies_in, ledger.months = dies_in, months
            try:
                worker.step(lengths)
            except Died:
                worker = Worker(ledger, log)
        ledger.dies_in = -1
        worker.finish()
        assert ledger.state() == clean(log)

    steps = st.tuples(stretches, st.integers(0, 6), st.integers(0, 2))
    fuzz(st.tuples(logs, st.lists(steps, max_size=6)), check, PART)


def test_two_workers_that_take_from_each_other_leave_the_tables_of_one_clean_run(fuzz: Callable[..., None]) -> None:
    def check(drawn: tuple[list, list]) -> None:
        log, plan = drawn
        ledger = MemoryLedger()
        workers = [Worker(ledger, log), Worker(ledger, log, budget=0)]
        for who, lengths, dies_in, months in plan:
            ledger.dies_in, ledger.months = dies_in, months
            try:
                workers[who].step(lengths)
            except Died:
                workers[who] = Worker(ledger, log)
        ledger.dies_in = -1
        workers[0].positions.clear()
        workers[0].next.clear()
        workers[0].finish()
        assert ledger.state() == clean(log)

    steps = st.tuples(st.integers(0, 1), stretches, st.integers(0, 6), st.integers(0, 2))
    fuzz(st.tuples(logs, st.lists(steps, max_size=8)), check, PART)


def test_flushes_prepared_while_the_one_before_is_written_leave_the_tables_of_one_clean_run(
    fuzz: Callable[..., None],
) -> None:
    """With no memory at all for identities: each flush reads those of the one before from the tables."""

    def check(drawn: tuple[list, list]) -> None:
        log, plan = drawn
        ledger = MemoryLedger()
        worker = Worker(ledger, log, budget=0)
        waiting: Callable[[], object] = lambda: None  # noqa: E731
        for lengths in [*plan, *[[OFFSETS] * PARTITIONS] * 2]:
            portions = worker.portions(lengths)
            if portions:
                landed = cache(waiting)
                prepared = worker.flush.prepare(portions, landed)
                landed()
                waiting = partial(worker.flush.write, prepared)
        waiting()
        assert ledger.state() == clean(log)

    fuzz(st.tuples(logs, st.lists(stretches, max_size=6)), check, PART)


def test_a_sleeper_that_wakes_before_any_step_writes_nothing_more() -> None:
    log = [[[(0, 0), None]] * OFFSETS] * PARTITIONS
    for step in ("before-raw", "before-rollups", "before-done"):
        ledger = MemoryLedger()
        sleeper, other = Worker(ledger, log), Worker(ledger, log)

        def sleep(name: str, step: str = step, other: Worker = other) -> None:
            if name == step:
                with patch("streams.flush.failpoint"):
                    other.finish()

        with patch("streams.flush.failpoint", sleep):
            sleeper.step([OFFSETS] * PARTITIONS)
        assert not sleeper.positions, "it was refused"
        assert ledger.state() == clean(log)


def test_dead_letters_are_published_once_they_are_written() -> None:
    log = [[[None, (1, 0)]] + [[]] * (OFFSETS - 1), [[]] * OFFSETS]
    worker = Worker(MemoryLedger(), log)
    worker.finish()
    assert [frame.select("topic", "topic_partition", "offset", "place").rows() for frame in worker.published] == [
        [(POWER.topic, 0, 0, 0)]
    ]


def test_dead_letters_of_a_flush_are_written_in_pieces_that_the_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flush, "DEAD_BYTES", 1000)
    rows = pl.DataFrame(
        {
            "place": range(10),
            "payload": [b"x" * 400] * 10,
            "key": [b"k"] * 10,
            "reason": ["r"] * 10,
            "detail": ["d"] * 10,
        }
    )
    pieces = flush._inserts(rows)
    assert pl.concat(pieces).equals(rows)
    assert [piece.height for piece in pieces] == [2, 2, 3, 2, 1]
    assert flush._inserts(rows.clear()) == []


def test_a_dead_letter_that_was_written_but_not_published_is_published_by_the_next_worker() -> None:
    def away(_: pl.DataFrame) -> None:
        raise Died

    log = [[[None, (1, 0)]] + [[]] * (OFFSETS - 1), [[]] * OFFSETS]
    ledger = MemoryLedger()
    first, typed = Worker(ledger, log), cast(Ledger, ledger)
    first.flush = Flush(POWER, typed, first.seen, away)
    with pytest.raises(Died):
        first.finish()
    assert ledger.tables["deadletters"][0].height == 1
    second = Worker(ledger, log)
    second.finish()
    assert [frame.height for frame in second.published] == [1]
    assert sum(frame.height for frame in ledger.tables["deadletters"]) == 1


def test_a_range_whose_counts_do_not_add_up_is_never_made() -> None:
    make: Callable[..., Range] = Range
    try:
        make(0, 0, 9, 10, 10, 8, 1, 0, 0, 0)
    except AssertionError:
        return
    raise RuntimeError("it was")
