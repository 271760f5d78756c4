"""`wattstream dashboards`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import AsJson, Home, PortBase
from pipelines.commands.printing import print_report
from schemas.settings import load

app = typer.Typer(help="The Grafana dashboards: write them as JSON, check them, publish them.", no_args_is_help=True)


@app.command()
def build(
    out: Annotated[Path, typer.Option("--out", help="The folder for one JSON file a dashboard.")],
    as_json: AsJson = False,
) -> None:
    """Write the dashboards as JSON files that Grafana imports."""
    from dashboards.build import build as build_files

    print_report({"files": [str(file) for file in build_files(out)]}, as_json)


@app.command()
def check(as_json: AsJson = False) -> None:
    """Check the dashboards against Grafana's schema and our rules for queries, units and variables."""
    from dashboards.build import check as check_dashboards

    problems = [str(problem) for problem in check_dashboards()]
    print_report({"problems": problems}, as_json)
    if problems:
        raise typer.Exit(1)


@app.command()
def publish(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Put folder, datasource and dashboards into the Grafana of WATTSTREAM_GRAFANA; safe to repeat."""
    from dashboards.publish import publish as publish_dashboards
    from pipelines.local.running import settings_of_running

    settings = load(home=home, port_base=port_base)
    if settings.grafana is not None:  # else it says so itself, whether a stack runs or not
        settings = settings_of_running(home, port_base)
    print_report(asdict(publish_dashboards(settings)), as_json)
