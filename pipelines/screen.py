"""The live status screen of `wattstream up`, and the same picture once for `wattstream status`."""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipelines.status import Numbers, NumbersReader
from schemas.errors import WattStreamError
from schemas.events import name_of
from schemas.settings import Settings

if TYPE_CHECKING:  # `wattstream status` need not load it
    from dags.archive.run import Report as Archived
    from pipelines.chaos.report import Report
    from pipelines.replay.compare import Comparison

_COLOURS = {
    "running": "green",
    "external": "green",
    "waiting": "dim",
    "starting": "yellow",
    "unresponsive": "red",
    "restarting": "red",
    "stopped": "dim",
}
_READ_SECONDS = 2.0
# With less the supervisor can't write down how its parts are.
FULL_BYTES = 1 << 20


def picture(home: Path, snapshot: dict[str, Any] | None, numbers: Numbers | None) -> RenderableType:
    """Parts, numbers and the last notices, from a supervisor's state and what was read beside it."""
    if snapshot is None:  # no stack in this home: Kafka and ClickHouse are elsewhere
        return _numbers(numbers)
    rows: list[RenderableType] = [_parts(snapshot["parts"])]
    if snapshot["download"]:
        rows.append(_download(*snapshot["download"]))
    rows.extend(_history(home))
    rows.append(_numbers(numbers))
    rows.extend(Text(notice, style="dim", overflow="fold") for notice in snapshot["notices"][-5:])
    if home.exists() and shutil.disk_usage(home).free < FULL_BYTES:
        rows.append(Text(f"The disk of {home} is full: what is shown is of before. Free some space.", style="red"))
    if snapshot["error"]:
        rows.append(Text(snapshot["error"], style="red"))
    rows.append(Text(f"{_HEADLINES[snapshot['phase']]}  Home: {home}", style="bold"))
    return Group(*rows)


_HEADLINES = {
    "starting": "WattStream is starting …",
    "ready": "WattStream is running. Ctrl-C or `wattstream down` stops it.",
    "stopping": "Stopping …",
    "stopped": "Not running: `wattstream up` starts it.",
    "failed": "The start failed.",
}


def _parts(parts: dict[str, dict[str, Any]]) -> Table:
    table = Table(expand=True, box=None, padding=(0, 2, 0, 0))
    for column in ("PART", "STATE", "ADDRESS", "PID", "RESTARTS", "LAST ERROR"):
        table.add_column(
            column, no_wrap=column not in ("ADDRESS", "LAST ERROR"), ratio=1 if column == "LAST ERROR" else None
        )
    for name, part in parts.items():
        state = Text(part["state"], style=_COLOURS.get(part["state"], ""))
        address = part["url"] or (f"{part['host']}:{part['port']}" if part["port"] else "")
        pid, restarts = str(part["pid"] or ""), str(part["restarts"] or "")
        table.add_row(name, state, address, pid, restarts, part["error"] or "")
    return table


def _numbers(numbers: Numbers | None) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    read = numbers or Numbers()
    lag = {name_of(topic): count for topic, count in read.lag.items() if count}
    waiting = ", ".join(f"{topic} {count:,}" for topic, count in sorted(lag.items(), key=lambda item: -item[1]))
    table.add_row("events/s in", _shown(read.events_in, ",.0f"), "out", _shown(read.events_out, ",.0f"))
    table.add_row(
        "freshness", _shown(read.freshness, ",.1f", " s"), "records waiting", waiting or ("0" if read.lag else "–")
    )
    table.add_row("dead letters", _shown(read.deadletters, ",d"), "completeness", _shown(read.completeness, ".1%"))
    return table


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _download(done: int, total: int) -> Progress:
    bar = Progress(
        TextColumn("Kafka's jars (first start only)"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), expand=True
    )
    bar.add_task("jars", total=total, completed=done)
    return bar


def _history(home: Path) -> list[RenderableType]:
    """A bar while the simulator lays down its history, in days."""
    from pipelines.feed.network import State  # the whole simulator, for a file of one line: not for the other screens

    try:
        state = State.read(home)
    except WattStreamError as error:
        return [Text(str(error), style="red")]
    if state is None or state.phase != "history" or not state.total:
        return []
    bar = Progress(
        TextColumn("History of the simulated network"), BarColumn(), MofNCompleteColumn(), TextColumn("days")
    )
    bar.add_task("history", total=round(state.total), completed=round(state.done))
    return [bar]


@contextlib.contextmanager
def live_screen(settings: Settings, console: Console, snapshot: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Keep the picture on the terminal while the body runs; numbers are read in a thread beside."""
    ended = threading.Event()
    latest: list[Numbers | None] = [None]

    def read() -> None:
        with NumbersReader(settings) as reader:
            while not ended.wait(_READ_SECONDS):
                if snapshot()["phase"] == "ready":
                    latest[0] = reader.read()

    threading.Thread(target=read, daemon=True).start()
    home = settings.home.resolve()
    with Live(
        console=console,
        get_renderable=lambda: picture(home, snapshot(), latest[0]),
        refresh_per_second=2,
        transient=False,
    ):
        try:
            yield
        finally:
            ended.set()


@contextlib.contextmanager
def progress_bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step of something long: call what this yields with the step's name, done and total."""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    )
    tasks: dict[str, TaskID] = {}

    def update(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total)
        bars.update(tasks[step], completed=done, total=total)

    with bars:
        yield update


def recoveries(report: "Report") -> Table:
    """A line for each kind of fault: how often, and the time until events were fresh again."""
    table = Table(box=None)
    table.add_column("FAULT")
    for title in ("TIMES", "RECOVERY p50, s", "max, s"):
        table.add_column(title, justify="right")
    for one in report.recoveries:
        table.add_row(one.fault, str(one.times), f"{one.p50_s:.1f}", f"{one.max_s:.1f}")
    return table


def reaches(report: "Archived") -> Table:
    """A line for each partition that ever had a message: how far the archive reaches, against the log."""
    table = Table(box=None, pad_edge=False)
    table.add_column("PARTITION", no_wrap=True, min_width=max(map(len, report.by_partition)))
    for title in ("ARCHIVED FROM", "TO", "LOG FROM", "TO", "WAITING"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("MAY EXPIRE", overflow="fold")
    for name, reach in report.by_partition.items():
        if reach.log_to or reach.archived_to:
            offsets = (reach.archived_from, reach.archived_to, reach.log_from, reach.log_to, reach.waiting)
            table.add_row(name, *(_shown(offset, ",d") for offset in offsets), (reach.expires or "")[:16])
    return table


def replayed(tables: "list[Comparison]") -> Table:
    """A line for each table of a replay: its rows, the same made anew, and where they differ."""
    table = Table(box=None, pad_edge=False)
    table.add_column("TABLE", no_wrap=True)
    for title in ("ROWS", "REPLAYED", "STILL MOVING"):
        table.add_column(title, justify="right")
    table.add_column("", overflow="fold")
    for one in tables:
        verdict = Text("the same", style="green") if one.same else Text("\n".join(one.differing), style="red")
        table.add_row(
            one.table, f"{one.rows:,}", f"{one.replayed:,}", f"{one.moving:,} min" if one.moving else "", verdict
        )
    return table
