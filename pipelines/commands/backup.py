"""The tables of the embedded ClickHouse, out of a home and into one."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import AsJson, Home, PortBase
from pipelines.commands.printing import err, print_report
from schemas.settings import load

app = typer.Typer()


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(help="A folder that is new or empty.")],
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Copy the embedded ClickHouse's tables, in step with the ledger; the stack may go on meanwhile."""
    from pipelines.backup import backup as copy_tables
    from pipelines.local.running import settings_of_running
    from pipelines.screen import progress_bars

    settings = settings_of_running(home, port_base)
    with progress_bars(err) as progress:
        manifest = copy_tables(settings, to, progress=progress)
    print_report(manifest.report(folder=str(to.resolve())), as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="The folder of a backup.")],
    home: Home = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the tables that the home has aside, and say where to.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup's tables into a home whose stack is down, each file held against its checksum."""
    from pipelines.backup import restore as put_back
    from pipelines.screen import progress_bars

    with progress_bars(err) as progress:
        manifest, aside = put_back(load(home=home), source, replace=replace, progress=progress)
    print_report(manifest.report(replaced=str(aside) if aside else None), as_json)
