"""`python -m pipelines.bench`: events/s and CPU of each variant, and the ratios between them."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.bench.run import VARIANTS, run
from schemas.errors import WattStreamError


def bench(
    events: Annotated[int, typer.Option(min=1000, help="Events to put into Kafka, for each encoding.")] = 2_000_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each variant; the median counts.")] = 3,
    only: Annotated[str, typer.Option(help=f"Some of: {', '.join(v.name for v in VARIANTS)}.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Measure the way from Kafka to queryable rows against its ceiling and against plain Faust, in one run."""
    progress = Console(stderr=True)
    try:
        result = run(events, repeat, [name for name in only.split(",") if name], progress.print)
    except WattStreamError as error:
        progress.print(f"Error: {error}", style="red")
        raise typer.Exit(1) from error
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)


def _show(result: dict[str, object]) -> None:
    table = Table(
        "variant", "events/s", "worker", "broker", "server", "peak MB", "runs", title="CPU s a million events"
    )
    for name, figures in result["variants"].items():  # type: ignore[attr-defined]
        cpu = figures["cpu_s_per_million"]
        table.add_row(
            name,
            f"{figures['events_per_s']:,.0f}",
            *(f"{cpu[part]:.2f}" for part in ("worker", "broker", "server")),
            f"{figures['peak_mb']:.0f}",
            " ".join(f"{one:,}" for one in figures["runs"]),
        )
    console = Console()
    console.print(table)
    for name, figures in result["variants"].items():  # type: ignore[attr-defined]
        if steps := figures["steps_s_per_million"]:
            console.print(name, "by step, CPU s a million:", {step: round(cost, 2) for step, cost in steps.items()})
    for name, ratio in result["ratios"].items():  # type: ignore[attr-defined]
        console.print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    typer.run(bench)
