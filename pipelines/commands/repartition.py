"""Give the topics other partitions."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from pipelines.commands.options import AsJson, Home, PortBase
from pipelines.commands.printing import err, print_report

app = typer.Typer()


@app.command()
def repartition(
    partitions: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many each input topic is to have; not needed to go on.")
    ] = None,
    source: Annotated[
        Literal["kafka", "archive"],
        typer.Option(
            "--from", help="Where old messages are read: Kafka's log, or the archive and from its end on that."
        ),
    ] = "kafka",
    accept_differences: Annotated[
        bool,
        typer.Option("--accept-differences", help="Go on where the tables made anew differ, or can't be compared."),
    ] = False,
    accept_misplaced: Annotated[
        bool, typer.Option("--accept-misplaced", help="Go on where keys are not where Kafka's partitioner puts them.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop what an unfinished one has copied first.")] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Drop what an unfinished one has made, and go on with the old topics.")
    ] = False,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Make the next version of all input topics with other partitions, fill it and the tables from it, and use it."""
    from pipelines.local.running import settings_of_running
    from pipelines.repartition.run import Choices
    from pipelines.repartition.run import repartition as run
    from pipelines.screen import progress_bars, replayed

    choices = Choices(partitions, source == "archive", fresh, accept_differences, accept_misplaced, give_up)
    with progress_bars(err) as progress:
        report = run(settings_of_running(home, port_base), choices, say=err.print, progress=progress)
    found = asdict(report)
    if not as_json:
        if report.tables:
            err.print(replayed(report.tables))
        del found["tables"]
    print_report(found, as_json)
