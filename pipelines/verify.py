# ruff: noqa: S608 (names are ours, values are bound by the server)
"""Proves that nothing is lost and nothing twice, trusting none of the workers: three accounts are held together.

What producers say they sent (their manifests), what the log holds (read and decoded here, verify_log.py), and what the
tables hold: raw rows, dead letters, the ledger and the sums of the rollups. Judged is what the ledger calls done when
the tables are looked at; what comes after is *pending*.

Memory: about 120 bytes an event of the largest partition.
"""

import time
from dataclasses import dataclass, field

import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException

from pipelines.feed import manifest
from pipelines.feed.manifest import Sending
from pipelines.verify_log import LogReader, Reading
from schemas.errors import WattStreamError
from schemas.events import EventType
from schemas.progress import Progress, silent
from schemas.settings import Settings
from schemas.sums import SUMS, of_raw, of_rollup
from schemas.tables import ROLLUPS, expiry_of
from schemas.versions import at, in_use

WAIT_SECONDS = 30.0
_POLL_SECONDS = 0.25

_HERE = "topic_partition = {partition:UInt16} AND offset < {end:Int64}"
_IDENTITY = (
    "reinterpretAsUInt64(reverse(substring(identity, 1, 8))) AS identity_hi, "
    "reinterpretAsUInt64(reverse(substring(identity, 9, 8))) AS identity_lo"
)
_POSITION = ["offset", "place"]
_HASH = ["identity_hi", "identity_lo"]
_MINUTE = "toInt64(intDiv(toUnixTimestamp({}), 60))"


@dataclass
class TopicReport:
    """One topic: ``events`` are the distinct ones of the log up to the done positions, dead letters included.

    ``lost``: events that are neither in raw nor among the dead letters, or not in the log though acknowledged, or
    missing in a rollup. ``twice``: identities again in raw, dead letters again, or too much in a rollup. ``pending``:
    messages of the log that aren't done yet.
    """

    events: int = 0
    rows: int = 0
    duplicates: int = 0
    rejects: int = 0
    lost: int = 0
    twice: int = 0
    pending: int = 0


@dataclass
class Report:
    """What `verify` found; ``differences`` says in words where the accounts disagree."""

    events: int = 0
    lost: int = 0
    twice: int = 0
    pending: int = 0
    acknowledged: int = 0
    unknown: int = 0
    by_topic: dict[str, TopicReport] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the three accounts agree."""
        return not (self.lost or self.twice or self.differences)


@dataclass(frozen=True)
class _Done:
    """The ledger's account of a partition."""

    end: int = 0
    events: int = 0
    rows: int = 0
    duplicates: int = 0
    rejects: int = 0
    gaps: int = 0
    expired: int = 0
    """First offset of which no row can have expired."""


def verify(
    settings: Settings,
    *,
    wait: bool = True,
    progress: Progress = silent,
    readings: dict[tuple[str, int], Reading] | None = None,
) -> Report:
    """Hold the three accounts together.

    ``wait``: let the workers first finish what the log holds now, while they move, at most ``WAIT_SECONDS``.
    ``readings``: what an earlier call has read of the log, by topic and partition, is not read again; kept up to date.

    :raises WattStreamError: where Kafka, ClickHouse or a manifest can't be read.
    """
    sent = list(manifest.sendings(settings.home))  # before the log's end is asked: what is acknowledged is there
    version = in_use(settings)
    types = {event_type.topic: event_type for event_type in at(version)}
    before = {event_type.topic: event_type for older in range(1, version) for event_type in at(older)}
    log = LogReader(settings)
    try:
        tables = _Tables(settings)
        partitions = log.partitions(list(types))
        replaced = log.partitions(list(before))
        if wait:
            _wait(tables, {place: log.bounds(*place)[1] for place in partitions}, progress)
        # First what is done, then the log's end: under live traffic nothing done is behind the end that is read.
        done = {(topic, partition): tables.done(types[topic], partition) for topic, partition in partitions}
        bounds = {place: log.bounds(*place) for place in [*replaced, *partitions]}
        total = sum(end - start for start, end in bounds.values())
        read = 0

        def advance(offsets: int) -> None:
            nonlocal read
            read += offsets
            progress("reading the log, offsets", read, total)

        def read_log(event_type: EventType, partition: int) -> Reading:
            place = event_type.topic, partition
            start, end = bounds[place]
            reading = log.read(
                event_type, partition, start, max(start, end), advance, readings.get(place) if readings else None
            )
            if readings is not None:
                readings[place] = reading
            return reading

        report = Report()
        copied = _Copied(report)
        for topic, partition in replaced:
            reading = read_log(before[topic], partition)
            _Judgement(report, tables, before[topic], partition, settings.dedupe).hold_manifests(reading, sent)
            copied.expect(before[topic], reading)
        for topic, partition in partitions:
            reading = read_log(types[topic], partition)
            _Judgement(report, tables, types[topic], partition, settings.dedupe).judge(
                reading, done[topic, partition], sent
            )
            copied.find(types[topic], reading)
        copied.judge()
        for topic in sorted({topic for topic, _ in partitions}):
            _across_partitions(report, tables, types[topic], settings.dedupe)
    except ClickHouseError as error:
        raise WattStreamError(f"ClickHouse at {settings.clickhouse_url} did not answer: {error}") from error
    except KafkaException as error:
        raise WattStreamError(f"Kafka at {settings.bootstrap} did not answer: {error.args[0].str()}") from error
    finally:
        log.close()
    for counted in report.by_topic.values():
        report.events += counted.events
        report.lost += counted.lost
        report.twice += counted.twice
        report.pending += counted.pending
    report.acknowledged = sum(sending.acknowledged.events for sending in sent)
    report.unknown = sum(sending.unknown.events for sending in sent)
    return report


def _wait(tables: "_Tables", ends: dict[tuple[str, int], int], progress: Progress) -> None:
    total = sum(ends.values())
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        done = sum(min(end, tables.end(topic, partition)) for (topic, partition), end in ends.items())
        if done >= total:
            return
        progress("waiting for the workers, offsets", done, total)
        time.sleep(_POLL_SECONDS)


class _Judgement:
    """Holds the accounts of one partition together."""

    def __init__(self, report: Report, tables: "_Tables", event_type: EventType, partition: int, dedupe: bool) -> None:
        self._report = report
        self._topic = report.by_topic.setdefault(event_type.topic, TopicReport())
        self._tables = tables
        self._type = event_type
        self._partition = partition
        self._dedupe = dedupe

    def judge(self, reading: Reading, done: _Done, sent: list[Sending]) -> None:
        """All comparisons; what differs is counted and told."""
        end = max(done.end, reading.start)
        self._topic.pending += reading.messages.filter(pl.col("offset") >= end).height
        self.hold_manifests(reading, sent)
        raw = self._tables.raw(self._type, self._partition, end)
        dead = self._tables.dead(self._type, self._partition, end)
        floor = max(reading.start, done.expired)
        events = reading.events.filter(pl.col("offset") < end)
        refused = self._refused(events, reading.messages, dead)
        missing = self._missing(events.filter(pl.col("offset") >= floor), refused, raw)
        self._count(events, refused, raw, dead, done)
        if missing.height:
            lost = missing.unique(_HASH).height if self._dedupe else missing.height
            self._lost(lost, f"{lost} events of the log are neither in {self._type.name} nor dead letters", missing)
        again = dead.height - dead.unique(_POSITION).height
        if again:
            self._twice(again, f"{again} dead letters are there twice")
        self._hold_ledger(reading, events, raw, dead, done)
        for table in ROLLUPS.get(self._type.name, ()):
            self._hold_rollup(table, end, missing)

    def hold_manifests(self, reading: Reading, sent: list[Sending]) -> None:
        """What producers were told that this partition has taken, it has."""
        parts = [
            part
            for sending in sent
            if sending.topic == self._type.topic
            for part in sending.parts
            if part.partition == self._partition and part.first >= reading.start
        ]
        if not parts:
            return
        acknowledged = sum(part.events for part in parts)
        first, last = min(part.first for part in parts), max(part.last for part in parts)
        held = reading.events.filter(pl.col("offset").is_between(first, last))
        # Sending by sending, so that what others sent meanwhile doesn't make up for what is gone.
        offsets = held.get_column("offset").sort()
        starts = offsets.search_sorted(pl.Series([part.first for part in parts], dtype=pl.Int64), "left")
        ends = offsets.search_sorted(pl.Series([part.last for part in parts], dtype=pl.Int64), "right")
        counted = (ends.cast(pl.Int64) - starts.cast(pl.Int64)).to_list()
        short = sum(max(0, part.events - count) for part, count in zip(parts, counted, strict=True))
        short = max(short, acknowledged - held.height)
        if short or last >= reading.end:
            self._lost(max(1, short), f"{acknowledged} events were acknowledged, the log holds {held.height}")
        elif acknowledged == held.height and not any(s.unknown.events for s in sent if s.topic == self._type.topic):
            checksum = int(held.get_column("identity_lo").cast(pl.UInt128).sum()) % 2**64
            if checksum != sum(part.checksum for part in parts) % 2**64:
                self._lost(1, "as many events as were acknowledged are in the log, but not the same (checksum)")

    def _refused(self, events: pl.DataFrame, messages: pl.DataFrame, dead: pl.DataFrame) -> pl.DataFrame:
        """The events that are dead letters: by their position, or because their whole message is one."""
        whole = dead.filter(pl.col("place") == 0).join(messages, on=["offset", "bytes"], how="semi")
        by_message = events.join(whole, on="offset", how="semi")
        return pl.concat([by_message, events.join(dead, on=_POSITION, how="semi")]).unique(_POSITION)

    def _missing(self, events: pl.DataFrame, refused: pl.DataFrame, raw: pl.DataFrame) -> pl.DataFrame:
        accepted = events.join(refused, on=_POSITION, how="anti")
        return accepted.join(raw, on=_HASH if self._dedupe else _POSITION, how="anti")

    def _count(
        self, events: pl.DataFrame, refused: pl.DataFrame, raw: pl.DataFrame, dead: pl.DataFrame, done: _Done
    ) -> None:
        accepted = events.join(refused, on=_POSITION, how="anti")
        distinct = accepted.unique(_HASH).height if self._dedupe else accepted.height
        self._topic.events += distinct + dead.unique(_POSITION).height  # a message that is refused whole is one
        self._topic.rows += raw.height
        self._topic.duplicates += done.duplicates
        self._topic.rejects += done.rejects

    def _hold_ledger(
        self, reading: Reading, events: pl.DataFrame, raw: pl.DataFrame, dead: pl.DataFrame, done: _Done
    ) -> None:
        if done.gaps:
            self._tell(f"the ledger's ranges have gaps or overlap: {done.gaps} offsets")
        if done.expired > reading.start or reading.start:  # then log and tables hold less than was once done
            return
        whole = dead.filter(pl.col("place") == 0).join(reading.messages, on=["offset", "bytes"], how="semi")
        in_log = events.join(whole, on="offset", how="anti").height + whole.unique(_POSITION).height
        for what, counted, said in (
            ("events of the log", in_log, done.events),
            (f"rows of {self._type.name}", raw.height, done.rows),
            ("dead letters", dead.height, done.rejects),
        ):
            if counted != said:
                self._tell(f"{counted} {what}, the ledger says {said}")
        strange = raw.join(events, on=_POSITION, how="anti").height
        if strange:
            self._twice(strange, f"{strange} rows of {self._type.name} come from no event of the log")

    def _hold_rollup(self, table: str, end: int, missing: pl.DataFrame) -> None:
        """By minute of which nothing is being written just now; lost rows are told already and not told again."""
        sums = [f"{name}_sum" for name in SUMS[table]]
        of_minute = self._tables.minutes(self._type, table, self._partition, end)
        lost = missing.group_by(pl.col("minute").alias("m")).agg(pl.len().cast(pl.Int64).alias("lost"))
        of_minute = of_minute.join(lost, on="m", how="left").with_columns(pl.col("lost").fill_null(0))
        difference = pl.col("samples_sum") + pl.col("lost") - pl.col("samples_sum_there")
        off = pl.any_horizontal(pl.col(c) != pl.col(f"{c}_there") for c in sums) & (pl.col("lost") == 0)
        wrong = of_minute.with_columns(difference=difference).filter((pl.col("difference") != 0) | off)
        if wrong.is_empty():
            return
        month = pl.from_epoch(pl.col("m") * 60).dt.strftime("%Y-%m")
        for row in wrong.group_by(month.alias("month")).agg(_shortage(sums)).sort("month").iter_rows(named=True):
            which = ", ".join(c.removesuffix("_sum") for c in sums if row[c])
            told = f"{table} {row['month']}: in {row['minutes']} minutes {which or 'samples'} differ from raw"
            if row["short"]:
                self._lost(row["short"], f"{told} ({row['short']} too few)")
            if row["over"]:
                self._twice(row["over"], f"{told} ({row['over']} too many)")

    def _lost(self, count: int, what: str, where: pl.DataFrame | None = None) -> None:
        self._topic.lost += count
        if where is not None:
            first = where.sort(_POSITION).row(0, named=True)
            what += f", the first at offset {first['offset']}, place {first['place']}"
        self._tell(what)

    def _twice(self, count: int, what: str) -> None:
        self._topic.twice += count
        self._tell(what)

    def _tell(self, what: str) -> None:
        self._report.differences.append(f"{self._type.topic}/{self._partition}: {what}")


class _Copied:
    """Holds the log of a topic against those of its earlier versions, as long as they are there: it has their events.

    Memory: about 50 bytes an event of an earlier version.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._expected: dict[str, tuple[EventType, pl.DataFrame]] = {}

    def expect(self, event_type: EventType, reading: Reading) -> None:
        """Of a partition of an earlier version."""
        found = reading.events.select(_HASH).drop_nulls()
        _, before = self._expected.get(event_type.name, (event_type, found.clear()))
        self._expected[event_type.name] = (event_type, pl.concat([before, found]).unique())

    def find(self, event_type: EventType, reading: Reading) -> None:
        """Of a partition of the version in use, where nothing of it has expired."""
        if event_type.name in self._expected:
            earlier, expected = self._expected[event_type.name]
            left = expected.clear() if reading.start else expected.join(reading.events, on=_HASH, how="anti")
            self._expected[event_type.name] = (earlier, left)

    def judge(self) -> None:
        """Once all were read."""
        for event_type, left in self._expected.values():
            if left.height:
                self._report.by_topic[event_type.topic].lost += left.height
                self._report.differences.append(
                    f"{event_type.topic}: {left.height} of its events are not in the version of the topic in use"
                )


def _shortage(sums: list[str]) -> list[pl.Expr]:
    """Samples too few and too many; a minute with the right samples and a wrong sum counts as one."""
    lacking = pl.sum_horizontal((pl.col(c) > pl.col(f"{c}_there")).cast(pl.Int64) for c in sums)
    exceeding = pl.sum_horizontal((pl.col(c) < pl.col(f"{c}_there")).cast(pl.Int64) for c in sums)
    difference = pl.col("difference")
    short = pl.when(difference != 0).then(difference.clip(lower_bound=0)).otherwise((lacking > 0).cast(pl.Int64))
    over = (
        pl.when(difference != 0)
        .then((-difference).clip(lower_bound=0))
        .otherwise(((exceeding > 0) & (lacking == 0)).cast(pl.Int64))
    )
    return [
        pl.len().alias("minutes"),
        short.sum().alias("short"),
        over.sum().alias("over"),
        *((pl.col(c) != pl.col(f"{c}_there")).any().alias(c) for c in sums),
    ]


def _across_partitions(report: Report, tables: "_Tables", event_type: EventType, dedupe: bool) -> None:
    """Identities more than once in raw, in whichever partitions."""
    again = tables.again(event_type, "identity" if dedupe else "(topic_partition, offset, place)")
    if again:
        report.by_topic[event_type.topic].twice += again
        what = "identities" if dedupe else "positions"
        report.differences.append(f"{event_type.topic}: {again} rows of {event_type.name} repeat {what}")


class _Tables:
    """What the tables hold."""

    def __init__(self, settings: Settings) -> None:
        self._client: Client = settings.clickhouse_client("writer", send_receive_timeout=300)
        self._ends: dict[tuple[str, int], int] = {}

    def end(self, topic: str, partition: int) -> int:
        """The end of the done ranges."""
        found = self._client.query(
            "SELECT max(last) + 1 FROM ingest_ranges WHERE topic = {topic:String} "
            "AND topic_partition = {partition:UInt16} HAVING count() > 0",
            parameters={"topic": topic, "partition": partition},
        ).result_rows
        return found[0][0] if found else 0

    def done(self, event_type: EventType, partition: int) -> _Done:
        """The ledger's account."""
        expiry = self._expiry(event_type)
        expired = f"maxIf(last, ({expiry}) <= now()) + 1" if expiry else "0"
        row = self._client.query(
            "SELECT max(last) + 1, sum(events), sum(rows), sum(duplicates), sum(rejects), "
            f"abs(max(last) + 1 - min(first) - sum(last - first + 1)), {expired} FROM ingest_ranges "
            "WHERE topic = {topic:String} AND topic_partition = {partition:UInt16} HAVING count() > 0",
            parameters={"topic": event_type.topic, "partition": partition},
        ).result_rows
        done = _Done(*row[0]) if row else _Done()
        self._ends[event_type.topic, partition] = done.end
        return done

    def raw(self, event_type: EventType, partition: int, end: int) -> pl.DataFrame:
        """Position and identity of the raw rows before ``end``."""
        found = self._frame(
            f"SELECT offset, place, {_IDENTITY} FROM {event_type.name} WHERE {_HERE}", partition=partition, end=end
        )
        return found.cast({"offset": pl.Int64, "place": pl.UInt32, "identity_hi": pl.UInt64, "identity_lo": pl.UInt64})

    def dead(self, event_type: EventType, partition: int, end: int) -> pl.DataFrame:
        """Position and size of the dead letters before ``end``."""
        found = self._frame(
            f"SELECT offset, place, length(payload) AS bytes FROM deadletters WHERE topic = '{event_type.topic}' "
            f"AND {_HERE}",
            partition=partition,
            end=end,
        )
        return found.cast({"offset": pl.Int64, "place": pl.UInt32, "bytes": pl.UInt64})

    def minutes(self, event_type: EventType, table: str, partition: int, end: int) -> pl.DataFrame:
        """The sums of a rollup by minute ``m``: by raw rows, and as they are there (``_there``).

        Left out are minutes that hold later rows than ``end`` already, and those of which raw rows have expired. A raw
        row that is there twice counts once.
        """
        arguments = {"partition": partition, "end": end}
        rows = f"{event_type.name} WHERE {_HERE}"
        count, distinct = self._client.query(
            f"SELECT count(), uniqExact(offset, place) FROM {rows}", parameters=arguments
        ).result_rows[0]
        if count != distinct:
            rows = f"(SELECT * FROM {rows} LIMIT 1 BY offset, place)"
        expiry = self._expiry(event_type)
        whole = f" AND NOT ({expiry.replace('arrived', 'min(arrived_min)')}) <= now()" if expiry else ""
        raw = self._frame(f"SELECT {_MINUTE.format('time')} AS m, {of_raw(table)} FROM {rows} GROUP BY m", **arguments)
        rollup = self._frame(
            f"SELECT {_MINUTE.format('minute')} AS m, {of_rollup(table)}, max(upto) < {{end:Int64}}{whole} AS judged "
            f"FROM {table} WHERE topic_partition = {{partition:UInt16}} GROUP BY m",
            **arguments,
        )
        sums = [f"{name}_sum" for name in SUMS[table]]
        both = raw.join(rollup, on="m", how="full", coalesce=True, suffix="_there")
        return both.filter(pl.col("judged").cast(pl.Boolean).fill_null(value=True)).select(
            "m", pl.col(*sums, *(f"{c}_there" for c in sums)).fill_null(0)
        )

    def again(self, event_type: EventType, what: str) -> int:
        """Rows of raw before the done positions whose ``what`` is there already."""
        ends = [(partition, end) for (topic, partition), end in self._ends.items() if topic == event_type.topic]
        before = " OR ".join(f"(topic_partition = {partition} AND offset < {end})" for partition, end in ends)
        return self._client.query(
            f"SELECT count() - uniqExact({what}) FROM {event_type.name} WHERE {before}"
        ).result_rows[0][0]

    def _expiry(self, event_type: EventType) -> str | None:
        engine = self._client.query(
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
            parameters={"name": event_type.name},
        ).result_rows
        if not engine:
            raise WattStreamError(f"ClickHouse has no table {event_type.name}: run `wattstream migrate` first.")
        return expiry_of(engine[0][0])

    def _frame(self, sql: str, **parameters: int) -> pl.DataFrame:
        return pl.DataFrame(pl.from_arrow(self._client.query_arrow(sql, parameters=parameters)))
