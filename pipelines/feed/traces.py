"""Imports real traces: each row of a file becomes one event, at the time that the file says.

The same file gives the same events at every import, so that a second one changes nothing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.feed.arrival import wait_until_queryable
from pipelines.feed.emitters import EMITTERS_SCHEMA, register
from pipelines.feed.llm_traces import DEFAULT_START, azure_llm, mooncake
from pipelines.feed.producer import Producer
from pipelines.feed.telemetry_traces import OTHER, biohpc, biohpc_emitters, harvard_emitters, harvard_ipmi
from pipelines.feed.trace_file import ColumnKind, check_events, read_trace
from schemas.envelope import complete
from schemas.errors import UsageError
from schemas.events import MAX_AHEAD, POWER, TOKENS, UTILIZATION, EventType
from schemas.progress import Progress, silent
from schemas.settings import Settings

"""Called with what is being done ("sending" in events, "waiting" in offsets), how much is done, and the total."""

_CHUNK_ROWS = 50_000
"""Rows of one sending: what an import keeps in memory as messages, and what a kill leaves unknown."""

_PACE_SECONDS = 0.1
"""A paced import sends what has become due this often."""


@dataclass(frozen=True)
class Kind:
    """A kind of trace: its columns, and what one event of it is."""

    name: str
    doc: str
    event_type: EventType
    columns: dict[str, ColumnKind]
    events: Callable[[pl.DataFrame, datetime], pl.DataFrame]
    dated: bool = True
    interval_seconds: int | None = None
    emitters: Callable[[pl.DataFrame], pl.DataFrame] | None = None


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "azure-llm",
            "Azure LLM inference trace: one row is one request.",
            TOKENS,
            {"TIMESTAMP": "time", "ContextTokens": "integer", "GeneratedTokens": "integer"},
            lambda rows, start: azure_llm(rows),
        ),
        Kind(
            "mooncake",
            "Mooncake trace: one row is one request; --start says when it begins.",
            TOKENS,
            {"timestamp": "integer", "input_length": "integer", "output_length": "integer"},
            mooncake,
            dated=False,
        ),
        Kind(
            "harvard-ipmi",
            "Harvard FASRC IPMI readings: one row is one reading of a node's sensor.",
            POWER,
            {"node": "text", "timestamp": "time", "sensor": "text", "value": "real", "unit": "text"},
            lambda rows, start: harvard_ipmi(rows),
            interval_seconds=60,
            emitters=harvard_emitters,
        ),
        Kind(
            "biohpc",
            "Cornell BioHPC GPU statistics: one row is an hour's mean over the GPUs of a server.",
            UTILIZATION,
            {"name": "text", "timestamp": "time", "powerave": "real", "tempave": "real", "utilave": "real"},
            lambda rows, start: biohpc(rows),
            interval_seconds=3600,
            emitters=biohpc_emitters,
        ),
    )
}


@dataclass
class ImportReport:
    """What an import sent. Times in UTC, durations in s; fields that don't fit the kind are empty."""

    kind: str
    file: str
    topic: str
    events: int
    first: datetime
    last: datetime
    repeated: int = 0
    """Rows that repeat the identity of another row: the same event, kept once."""
    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    power_readings: int | None = None
    temperature_readings: int | None = None
    roles: dict[str, int] = field(default_factory=dict)
    other_sensors: dict[str, int] = field(default_factory=dict)
    """Readings by sensor that the map of roles doesn't know: kept, with the role `other`."""
    nodes: int | None = None
    emitters: int = 0
    sent_after_seconds: float = 0.0
    queryable_after_seconds: float | None = None
    """None where it was not waited for."""


def import_trace(
    settings: Settings,
    kind: str,
    path: Path,
    *,
    speed: float | None = None,
    start: datetime | None = None,
    wait: bool = True,
    progress: Progress = silent,
) -> ImportReport:
    """Check a trace file whole, then send its events, and wait until all of them can be queried.

    :param speed: how many times faster than the trace itself to send; None = as fast as it goes. Event times stay.
    :param start: when a trace without a date of its own begins; DEFAULT_START if not given.
    :raises UsageError: for a kind, start or speed that can't be.
    :raises WattStreamError: for a file that is wrong (nothing is sent then), or a part that doesn't answer.
    """
    chosen = _kind(kind)
    if speed is not None and not speed > 0:
        raise UsageError(f"--speed must be above 0, not {speed:g}: 1 is the trace's own pace, --asap the fastest.")
    events = trace_events(chosen, path, start=start, now=datetime.now(UTC))
    report = describe(chosen, path, events)
    client = settings.clickhouse_client("writer") if wait or chosen.emitters else None
    began = time.monotonic()
    try:
        with Producer(settings, f"import-{chosen.name}") as producer:
            producer.require([chosen.event_type])
            if client is not None:
                report.emitters = register(client, trace_emitters(chosen, events))
            times = events.get_column("time").to_physical().to_numpy()
            progress("sending", 0, events.height)
            for first, end in paced(times, speed, time.monotonic, time.sleep):
                producer.send(chosen.event_type, events[first:end])
                progress("sending", end, events.height)
            producer.flush()
            report.sent_after_seconds = time.monotonic() - began
        if client is not None and wait:
            wait_until_queryable(client, producer.spans, lambda done, total: progress("waiting", done, total))
            report.queryable_after_seconds = time.monotonic() - began
    finally:
        if client is not None:
            client.close()
    return report


def trace_events(kind: Kind, path: Path, *, start: datetime | None, now: datetime) -> pl.DataFrame:
    """The events of a checked file in the order of their times, as the event type's columns.

    :raises UsageError: for a ``start`` where the trace has dates, or one that puts it in the future.
    :raises WattStreamError: where the file is wrong.
    """
    if start is not None and kind.dated:
        raise UsageError(f"A {kind.name} trace has dates of its own: leave --start away.")
    rows = read_trace(path, kind.columns)
    begin = start or DEFAULT_START
    events = kind.events(rows, begin if begin.tzinfo else begin.replace(tzinfo=UTC))
    last = events.get_column("time").max()
    if start is not None and isinstance(last, datetime) and last > now + MAX_AHEAD:
        raise UsageError(f"--start {start.isoformat()} puts the end of the trace in the future ({last.isoformat()}).")
    check_events(path, rows, kind.event_type, complete(kind.event_type, events), now)
    return events.sort("time", maintain_order=True)


def trace_emitters(kind: Kind, events: pl.DataFrame) -> pl.DataFrame:
    """Who is expected of a trace: from an emitter's first minute to the end of the file's last day.

    Not beyond, so that a trace of years ago isn't missed today, and not less: who fell silent before is missing.
    """
    if kind.emitters is None:
        return pl.DataFrame(schema=EMITTERS_SCHEMA)
    column = "meter" if "meter" in events.columns else "device"
    first = events.group_by("site", "node", emitter=column).agg(since=pl.col("time").min().dt.truncate("1m"))
    end = events.select((pl.col("time").max().dt.truncate("1d") + timedelta(days=1)).alias("until")).item()
    return (
        kind.emitters(events)
        .join(first, on=["site", "node", "emitter"])
        .with_columns(
            topic=pl.lit(kind.event_type.name), interval_seconds=pl.lit(kind.interval_seconds), until=pl.lit(end)
        )
    )


def describe(kind: Kind, path: Path, events: pl.DataFrame) -> ImportReport:
    """What the events of a trace amount to."""
    first, last = events.select(first=pl.col("time").min(), last=pl.col("time").max()).row(0)
    report = ImportReport(kind.name, str(path), kind.event_type.topic, events.height, first, last)
    identity = [column for column in kind.event_type.identity if column in events.columns]
    report.repeated = events.height - events.select(pl.struct(identity).n_unique()).item()
    if kind.event_type is TOKENS:
        report.requests = events.height
        report.input_tokens = int(events.get_column("input_tokens").sum())
        report.output_tokens = int(events.get_column("output_tokens").sum())
    else:
        report.power_readings = int(events.get_column("watts").count())
        report.temperature_readings = int(events.get_column("temperature_celsius").count())
        report.nodes = events.select(pl.struct("site", "node").n_unique()).item()
    if kind.event_type is POWER:
        report.roles = _counts(events, "role")
        report.other_sensors = _counts(events.filter(pl.col("role") == OTHER), "meter")
    return report


def paced(
    times: np.ndarray, speed: float | None, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[tuple[int, int]]:
    """Slices (first, end) of sorted ``times`` (ns), each when it is due; all at once where ``speed`` is None."""
    began = clock()
    due = np.zeros(len(times)) if speed is None else (times - times[0]) / (1e9 * speed)
    first = 0
    while first < len(times):
        elapsed = clock() - began
        end = min(int(np.searchsorted(due, elapsed, side="right")), first + _CHUNK_ROWS)
        if end > first:
            yield first, end
            first = end
        else:
            sleep(max(_PACE_SECONDS, min(due[first] - elapsed, 1.0)))


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise UsageError(f"There is no kind of trace {name!r}. There are: {', '.join(KINDS)}.")
    return KINDS[name]


def _counts(events: pl.DataFrame, column: str) -> dict[str, int]:
    counts = events.group_by(column).len().sort("len", column, descending=[True, False])
    return dict(counts.iter_rows())
