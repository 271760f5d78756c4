"""What goes in and comes out: import, query, verify, archive, plan."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import AsJson, Home, OfTopic, PortBase, time_of
from pipelines.commands.printing import err, out, print_report
from schemas.errors import UsageError, WattStreamError
from schemas.settings import load

app = typer.Typer()


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="azure-llm, mooncake, harvard-ipmi or biohpc.")],
    file: Annotated[Path, typer.Argument(help="The trace: a Parquet file.")],
    home: Home = None,
    port_base: PortBase = None,
    speed: Annotated[
        float | None, typer.Option(help="Send this many times faster than the trace's own pace; event times stay.")
    ] = None,
    asap: Annotated[bool, typer.Option("--asap", help="Send as fast as it goes (the default).")] = False,
    start: Annotated[
        str | None, typer.Option(help="When a trace without dates begins, ISO 8601, UTC unless it says otherwise.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return when all is sent, not when it can be queried.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a real trace through Kafka, and wait until all of it can be queried."""
    from pipelines.feed.traces import import_trace
    from pipelines.local.running import settings_of_running
    from pipelines.screen import progress_bars

    if asap and speed is not None:
        raise UsageError("--speed and --asap exclude each other.")
    begin = time_of("--start", start) if start else None
    settings = settings_of_running(home, port_base)
    with progress_bars(err) as progress:
        report = import_trace(settings, kind, file, speed=speed, start=begin, wait=not no_wait, progress=progress)
    print_report(asdict(report), as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SQL statement, or - to read it from standard input.")],
    home: Home = None,
    port_base: PortBase = None,
    output: Annotated[
        str | None, typer.Option("--format", help="ClickHouse's name of it: TSV, JSONEachRow, CSVWithNames, Parquet …")
    ] = None,
) -> None:
    """Run a query as viewer (read only) and stream the answer to standard output."""
    from pipelines.local.running import settings_of_running
    from pipelines.sql import stream_query

    text = sys.stdin.read() if query == "-" else query
    form = output or ("PrettyCompactMonoBlock" if sys.stdout.isatty() else "TSVWithNames")
    try:
        for chunk in stream_query(settings_of_running(home, port_base), text, form):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader has enough: | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def verify(
    home: Home = None,
    port_base: PortBase = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Judge what is done now, without letting the workers catch up (30 s).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what was sent, what the log holds and what the tables hold; 1 where an event is lost or twice."""
    from pipelines.local.running import settings_of_running
    from pipelines.screen import progress_bars
    from pipelines.verify import verify as verify_events

    settings = settings_of_running(home, port_base)
    with progress_bars(err) as progress:
        report = verify_events(settings, wait=not no_wait, progress=progress)
    print_report(asdict(report), as_json)
    if not report.holds:
        raise typer.Exit(1)


@app.command()
def archive(
    topic: OfTopic = None,
    until: Annotated[
        str | None,
        typer.Option(help="Only what arrived before: 2026-05-01 or 2026-05-01T12:00, UTC unless it says otherwise."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Add nothing: read every file again and compare. Needs no Kafka.")
    ] = False,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Copy what is new in the log to Parquet files, and say how far they reach; 1 where something is missing."""
    from dags.archive.run import archive as add_missing
    from dags.archive.run import verify as read_again
    from pipelines.local.running import settings_of_running
    from pipelines.screen import progress_bars, reaches

    before = time_of("--until", until) if until else None
    if before is not None and verify:
        raise UsageError("--until and --verify exclude each other.")
    settings = load(home=home, port_base=port_base)
    topics = [topic] if topic else []
    with progress_bars(err) as progress:
        if verify:
            report = read_again(settings, topics, progress=progress)
        else:
            if settings.kafka is None:  # else no stack has to run here
                settings = settings_of_running(home, port_base)
            report = add_missing(settings, topics, until=before, progress=progress)
    found = asdict(report)
    if not as_json and found.pop("by_partition"):
        out.print(reaches(report), width=None if out.is_terminal else 120)  # a file has no width to fit to
    print_report(found, as_json)
    if not report.holds:
        raise typer.Exit(1)


@app.command()
def plan(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Run the forecast job of Dagster once, in this process, and print where its report is."""
    from dags.runs import run_forecast
    from pipelines.local.running import settings_of_running

    settings = settings_of_running(home, port_base)
    with err.status("Forecasting …"):
        run = run_forecast(settings)
    if not run.success:
        raise WattStreamError(f"The forecast could not be made: {run.error}")
    print_report({"report": run.report}, as_json)
