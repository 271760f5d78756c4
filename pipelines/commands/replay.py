"""Rebuild the tables from the log."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from pipelines.commands.options import AsJson, Home, PortBase
from pipelines.commands.printing import err, print_report

app = typer.Typer()


@app.command()
def replay(
    source: Annotated[
        Literal["kafka", "archive"],
        typer.Option(
            "--from", help="Where messages are read: Kafka's log, or the archive and from its end on the log."
        ),
    ] = "kafka",
    into: Annotated[str, typer.Option(help="The database to fill; one that was begun goes on.")] = "wattstream_replay",
    swap: Annotated[
        bool, typer.Option("--swap", help="Then put its tables in the place of ours, or finish a swap cut short.")
    ] = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Swap also where tables differ: newer code reads the log anew.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop that database first.")] = False,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Make every raw table and rollup anew from the log while ours serve, and compare them; 1 where they differ."""
    from pipelines.local.running import settings_of_running
    from pipelines.replay.run import replay as run
    from pipelines.screen import progress_bars, replayed

    settings = settings_of_running(home, port_base)
    with progress_bars(err) as progress:
        report = run(
            settings,
            into=into,
            archived=source == "archive",
            fresh=fresh,
            swapping=swap,
            accept_differences=accept_differences,
            say=err.print,
            progress=progress,
        )
    found = asdict(report)
    if not as_json:
        if report.tables:
            err.print(replayed(report.tables))
        del found["tables"]
    print_report(found, as_json)
    if not report.holds and not report.swapped:
        raise typer.Exit(1)
