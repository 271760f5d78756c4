"""Every dashboard's queries on weeks of the simulated network: `wattstream bench --dashboards DAYS`."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from dags import hourly, hourly_measures
from dags.clickhouse import Warehouse
from dashboards.board.answers import Answers, Choices
from dashboards.board.data import QUERY_SETTINGS, Source, clickhouse
from dashboards.build import all_dashboards
from pipelines.feed.assets import emitters
from pipelines.feed.demand import Demand
from pipelines.feed.emitters import NO_END, register
from pipelines.feed.history import DAY, SECOND, history
from pipelines.feed.plant import Plant
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from pipelines.migrate import migrate
from schemas.envelope import CONTENT_TYPES, encode
from schemas.events import EventType
from schemas.progress import Progress
from schemas.settings import Settings, load
from schemas.tables import COARSER, MEASURES
from streams.inserts import Inserts
from streams.intake import keyed
from streams.polled import Polled, Run
from streams.rollup import roll_up

STEP_SECONDS = 60
ROWS_A_MESSAGE = 10_000
ROWS_MARK, MILLISECONDS_MARK = 5_000_000, 300
REPEAT = 8
FILLING, ASKING = "days of the network", "panels"

Panel = tuple[str, str]
"""A dashboard's uid and a panel's title."""


class Panels:
    """All panels of all dashboards, asked as the board asks."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._answers = Answers(all_dashboards(), Source(clickhouse(settings)), clock)
        self._viewer = settings.clickhouse_client("viewer")

    def queries(self, choices: Choices) -> Iterator[tuple[Panel, str]]:
        """Each query for these choices, as ClickHouse is sent it; of a variable's options first."""
        for uid, document in self._answers.documents.items():
            for variable, sql in self._answers.option_queries(uid, choices).items():
                yield (uid, variable), sql
            for panel in document["panels"]:
                _, queries = asyncio.run(self._answers.queries(uid, panel["id"], choices))
                for sql in queries:
                    yield (uid, panel["title"]), sql

    def ask(self, sql: str) -> Any:
        """Its rows, and what reading them took."""
        return self._viewer.query(sql, settings=QUERY_SETTINGS)


@dataclass(frozen=True)
class Measured:
    """One query over one range: rows read, and ms from asking to having the rows, of each repetition."""

    dashboard: str
    panel: str
    days: float
    rows_read: int
    milliseconds: list[float]

    @property
    def p95_ms(self) -> float:
        """Between the slowest of its repetitions and the next."""
        return statistics.quantiles(self.milliseconds, n=20, method="inclusive")[-1]


@dataclass
class DashboardReport:
    """What was measured, on how many raw rows."""

    days: int
    raw_rows: int
    queries: list[Measured]

    def p95_ms(self, days: float) -> float:
        """Of all repetitions of all queries over that range."""
        times = [one for query in self.queries if query.days == days for one in query.milliseconds]
        return statistics.quantiles(times, n=20)[-1]

    def most_rows(self, days: float) -> int:
        """Read by one query over that range."""
        return max(query.rows_read for query in self.queries if query.days == days)

    @property
    def ranges(self) -> list[float]:
        """In days."""
        return sorted({query.days for query in self.queries})

    @property
    def slow(self) -> list[Measured]:
        """Those above a mark, the slowest first."""
        above = [one for one in self.queries if one.p95_ms > MILLISECONDS_MARK or one.rows_read > ROWS_MARK]
        return sorted(above, key=lambda one: -one.p95_ms)

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "days": self.days,
            "raw_rows": self.raw_rows,
            "ranges": {
                f"{days:g}": {"p95_ms": self.p95_ms(days), "most_rows_read": self.most_rows(days)}
                for days in self.ranges
            },
            "queries": [vars(query) | {"p95_ms": query.p95_ms} for query in self.queries],
        }


def dashboards_on_weeks(days: int, say: Callable[[str], None], progress: Progress) -> DashboardReport:
    """Fill a server of its own with so many days of the network by the minute, and ask every panel of it."""
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    with _server() as settings:
        raw_rows = _fill(settings, end - timedelta(days=days), end, progress)
        say(f"{raw_rows:,} raw rows in {days} days")
        begin = time.monotonic()
        with Warehouse.of(settings) as warehouse:
            for table in COARSER:
                hourly.refresh(warehouse, table)
            for hours in MEASURES:
                hourly_measures.refresh(warehouse, hours)
        say(f"hourly tables made in {time.monotonic() - begin:.0f} s")
        panels = Panels(settings, lambda: end)
        report = DashboardReport(days, raw_rows, [])
        for span in sorted({0.25, 1.0, 2.0, 7.0, min(21.0, days), float(days)}):
            choices = Choices(
                str(int((end.timestamp() - span * 86_400) * 1000)), str(int(end.timestamp() * 1000)), "10s", {}
            )
            asked = list(panels.queries(choices))
            for number, ((uid, title), sql) in enumerate(asked):
                progress(ASKING, number, len(asked))
                report.queries.append(_measured(panels, uid, title, span, sql))
            say(f"{span:g} days: p95 {report.p95_ms(span):.0f} ms, at most {report.most_rows(span):,} rows a query")
        return report


def _measured(panels: Panels, uid: str, title: str, span: float, sql: str) -> Measured:
    times: list[float] = []
    rows = 0
    for _ in range(REPEAT):
        begin = time.perf_counter()
        rows = int(panels.ask(sql).summary["read_rows"])
        times.append((time.perf_counter() - begin) * 1e3)
    return Measured(uid, title, span, rows, times)


@contextmanager
def _server() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="wattstream-bench-") as folder:
        settings = load(home=Path(folder), port_base=free_ports(20), kafka=None, clickhouse=None)
        with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
            migrate(settings)
            yield settings


def _fill(settings: Settings, begin: datetime, end: datetime, progress: Progress) -> int:
    """Raw rows and rollups of the history, as a worker writes them, past Kafka; returns how many raw rows."""
    plant, start, stop = Plant(settings.seed), int(begin.timestamp()) * SECOND, int(end.timestamp()) * SECOND
    client = settings.clickhouse_client("writer")
    register(client, emitters(plant, STEP_SECONDS, begin, NO_END))
    inserts = Inserts(client)
    ends: dict[str, int] = {}
    rows = 0
    for upto, batches in history(plant, Demand(settings.seed, start), start, stop, STEP_SECONDS, fine=start + 1):
        rows += sum(_write(inserts, batch.event_type, batch.frame, ends) for batch in batches)
        progress(FILLING, (upto - start) // DAY, (stop - start) // DAY)
    return rows


def _write(inserts: Inserts, event_type: EventType, frame: pl.DataFrame, ends: dict[str, int]) -> int:
    """Through the decoder, for the network has broken meters; ``ends`` is the next offset by topic."""
    values: list[bytes | None] = [
        value for part in frame.iter_slices(ROWS_A_MESSAGE) for value in encode(event_type, part, "arrow")
    ]
    first = ends.get(event_type.topic, 0)
    ends[event_type.topic] = first + len(values)
    polled = Polled(
        run=Run(event_type.topic, 0, first),
        expected=first,
        values=values,
        keys=[None] * len(values),
        content_types=[CONTENT_TYPES["arrow"]] * len(values),
        offsets=list(range(first, first + len(values))),
        arrived=[time.time_ns() // 1_000_000] * len(values),
    )
    rows = keyed(event_type, polled).frame.with_columns(topic_partition=pl.lit(0, pl.UInt16))
    inserts.run(event_type.name, rows)
    for table, partials in roll_up(event_type.name, rows).items():
        inserts.run(table, partials.with_columns(upto=pl.lit(ends[event_type.topic] - 1, pl.Int64)))
    return rows.height
