# ruff: noqa: S608 (names are ours)
"""`wattstream replay`: each raw table and rollup made anew from the log, compared with ours, and put in its place."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipelines.migrate import migrate
from pipelines.replay import swap
from pipelines.replay.compare import Comparison, compare
from pipelines.replay.fill import ends_of, fill
from pipelines.replay.sources import FromArchive, FromKafka, Source
from schemas.errors import UsageError, WattStreamError
from schemas.events import EventType
from schemas.progress import Progress
from schemas.settings import DATABASE, Settings
from schemas.versions import event_types
from streams.swaps import REPARTITIONED, Intent, open_intent
from streams.takes import Log

DEFAULT_DATABASE = f"{DATABASE}_replay"
Say = Callable[[str], None]


@dataclass
class Report:
    """What a replay did; ``tables`` is empty where only a swap was finished."""

    database: str
    events: int = 0
    rows: int = 0
    seconds: float = 0.0
    tables: list[Comparison] = field(default_factory=list)
    swapped: bool = False

    @property
    def holds(self) -> bool:
        """Whether every table is the same."""
        return all(table.same for table in self.tables)


def replay(
    settings: Settings,
    *,
    into: str = DEFAULT_DATABASE,
    archived: bool = False,
    fresh: bool = False,
    swapping: bool = False,
    accept_differences: bool = False,
    say: Say,
    progress: Progress,
) -> Report:
    """Fill the database ``into`` from the log up to its end, or go on filling it; compare; swap if told.

    :raises WattStreamError: where the log has not all that our tables have, or tables differ and that is not accepted.
    """
    if into == REPARTITIONED or not re.fullmatch(rf"{DATABASE}_\w+", into, re.ASCII):
        raise UsageError(f"--into {into!r}: a name like {DEFAULT_DATABASE}, which the user writer may make.")
    begin = time.monotonic()
    source: Source = FromArchive(settings) if archived else FromKafka(settings)
    types = event_types(settings)
    with swap.alone(settings), closing(settings.clickhouse_client("writer")) as client, told(settings):
        intent = open_intent(client)
        if intent is not None and swap.exchanged(client, intent):
            if not swapping or intent.replayed != into:
                raise WattStreamError(cut_short(intent))
            swap.exchange(client, intent, say)
            return Report(into, seconds=time.monotonic() - begin, swapped=True)
        if intent is not None and not swapping:
            raise WattStreamError(cut_short(intent))
        if intent is not None and (fresh or intent.replayed != into):
            swap.abandon(client, intent)
            intent = None
        prepare(client, settings, into, fresh=fresh)
        logs = logs_of(source, types)
        fill(settings, into, source, types, ends_of_logs(logs), progress)
        report = Report(into)
        theirs, ours = ends_of(settings, into), ends_of(settings, DATABASE)
        report.tables = compare(
            client, into, {place: min(theirs.get(place, 0), end) for place, end in ours.items()}, progress
        )
        if swapping:
            if not (report.holds or accept_differences):
                raise WattStreamError(differ(report.tables))
            _swap(client, settings, source, types, into, intent, say, progress)
            report.swapped = True
        of = DATABASE if report.swapped else into
        counted = client.query(f"SELECT sum(events), sum(rows) FROM {of}.ingest_ranges").result_rows
        report.events, report.rows = counted[0]
    report.seconds = time.monotonic() - begin
    return report


@contextmanager
def told(settings: Settings) -> Iterator[None]:
    """Errors of ClickHouse as ours."""
    try:
        yield
    except ClickHouseError as error:
        raise WattStreamError(f"ClickHouse at {settings.clickhouse_url}: {error}") from error


def logs_of(source: Source, types: Sequence[EventType]) -> dict[EventType, dict[int, Log]]:
    """What there is of each partition."""
    return {event_type: source.logs(event_type.topic) for event_type in types}


def ends_of_logs(logs: Mapping[EventType, Mapping[int, Log]]) -> dict[tuple[str, int], int]:
    """By topic and partition."""
    return {(of.topic, partition): log.end for of, found in logs.items() for partition, log in found.items()}


def prepare(client: Client, settings: Settings, into: str, *, fresh: bool) -> None:
    """Make the database and its tables, where they aren't there.

    :raises WattStreamError: where it holds tables that have served.
    """
    if fresh:
        client.command(f"DROP DATABASE IF EXISTS {into} SYNC")
    migrate(settings, database=into)
    swapped = client.query(f"SELECT max(at) FROM {into}.swaps WHERE phase = 'done' HAVING count() > 0").result_rows
    if swapped:
        raise WattStreamError(
            f"{into} holds the tables that served until the swap of {swapped[0][0]:%Y-%m-%d %H:%M} UTC. Give --fresh "
            "to drop them and replay anew, or --into another name."
        )


def _swap(
    client: Client,
    settings: Settings,
    source: Source,
    types: Sequence[EventType],
    into: str,
    intent: Intent | None,
    say: Say,
    progress: Progress,
) -> None:
    intent = intent or swap.begin(client, into)
    try:
        ends = swap.claim_all(settings, logs_of(source, types), say)
        fill(settings, into, source, types, ends, progress)
        _hold_coverage(client, into, types)
    except BaseException:  # nothing is exchanged yet: let the workers go on
        swap.abandon(client, intent)
        raise
    swap.exchange(client, intent, say)


def _hold_coverage(client: Client, into: str, types: Sequence[EventType]) -> None:
    """The replay's ledger begins no later than ours of these topics, ends no earlier, and misses no message.

    :raises WattStreamError: where it does not.
    """
    ours, theirs = (
        pl.DataFrame(
            pl.from_arrow(
                client.query_arrow(
                    "SELECT topic, topic_partition, min(first) AS first, max(last) AS last, sum(messages) AS messages "
                    f"FROM {database}.ingest_ranges GROUP BY ALL",
                    use_strings=True,
                )
            )
        )
        for database in (DATABASE, into)
    )
    ours = ours.filter(pl.col("topic").is_in([event_type.topic for event_type in types]))
    both = ours.join(theirs, on=["topic", "topic_partition"], how="left", suffix="_there")
    off = both.filter(
        (pl.col("last_there") < pl.col("last")).fill_null(value=True)
        | (pl.col("first_there") > pl.col("first"))
        | (pl.col("messages_there") < pl.col("messages"))
    )
    if not off.is_empty():
        row = off.row(0, named=True)
        raise WattStreamError(
            f"{row['topic']}/{row['topic_partition']}: our tables have offsets {row['first']} to {row['last']} "
            f"({row['messages']} messages), the replay {row['first_there']} to {row['last_there']} "
            f"({row['messages_there']}). What has expired from Kafka may be in the archive: --from archive."
        )


def differ(tables: list[Comparison]) -> str:
    """What to say where they do."""
    differing = "; ".join(f"{table.table}: {table.differing[0]}" for table in tables if not table.same)
    return (
        f"Not swapped, since tables differ: {differing}. Where newer code is meant to read the log in another way, "
        "give --accept-differences."
    )


def cut_short(intent: Intent) -> str:
    """What to say of an exchange that nobody ends."""
    return f"A swap with {intent.replayed} was cut short, and the workers wait for it: `{intent.finish}` ends it."
