"""How fast: the way from Kafka to queryable rows, beside its ceiling and its peers."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.commands.options import AsJson
from pipelines.commands.printing import err, out, print_json

if TYPE_CHECKING:
    from pipelines.bench.report import Report

app = typer.Typer()


@app.command()
def bench(
    events: Annotated[
        int, typer.Option(min=300_000, help="JSON events to put into Kafka; twice as many in Arrow batches.")
    ] = 1_800_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each variant; the median counts.")] = 3,
    only: Annotated[
        str, typer.Option(help="Only these variants, with a comma between; an unknown one lists all.", metavar="NAMES")
    ] = "",
    factors: Annotated[
        bool, typer.Option("--factors", help="Also what more devices, late or broken events and a second worker do.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure events a second, CPU, memory and freshness against a ceiling and peers; Ctrl-C shows what there is."""
    from pipelines.bench.run import Bench
    from pipelines.screen import progress_bars

    with progress_bars(err) as progress:
        run = Bench(
            events,
            repeat,
            only=[name for name in only.split(",") if name],
            factors=factors,
            say=lambda message: err.print(message, markup=False, soft_wrap=True),
            progress=progress,
        )
        cut_short = False
        try:
            run.run()
        except KeyboardInterrupt:
            cut_short = True
    if as_json:
        print_json(run.report.document())
    else:
        _show(run.report)
    if cut_short or run.report.failed:
        raise typer.Exit(1)


def _show(report: "Report") -> None:
    speed = Table("VARIANT", title="Full speed; CPU s a million events", box=None)
    for title in ("EVENTS/S", "SPREAD", "WORKER", "BROKER", "SERVER", "PEAK MB"):
        speed.add_column(title, justify="right")
    for name in report.counted:
        median = report.median(name)
        cpu = (f"{median.cpu_s_per_million[part]:.2f}" for part in ("worker", "broker", "server"))
        speed.add_row(name, f"{median.events_per_s:,.0f}", f"{report.spread(name):.0%}", *cpu, f"{median.peak_mb:,.0f}")
    out.print(speed)
    loads = Table("VARIANT", title="At a part of its maximum, beside a live producer", box=None)
    for title in ("%", "EVENTS/S", "FRESH p50, s", "p99, s", "CPU s a million", "PEAK MB"):
        loads.add_column(title, justify="right")
    for name, of_it in report.at_loads.items():
        for load, found in of_it.items():
            fresh = (f"{found.freshness_p50_s:.2f}", f"{found.freshness_p99_s:.2f}")
            loads.add_row(
                name, str(load), f"{found.events_per_s:,.0f}", *fresh, f"{found.cpu_s:.2f}", f"{found.peak_mb:,.0f}"
            )
    out.print(loads)
    for name in report.counted:
        if steps := report.median(name).steps_s_per_million:
            told = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
            out.print(f"{name}, worker's CPU s a million by step: {told}")
    ratios = Table("RATIO", box=None)
    for title in ("", "MARK", ""):
        ratios.add_column(title, justify="right")
    for name, (value, ratio) in report.ratios().items():
        if ratio is None or ratio.mark is None:
            ratios.add_row(name, f"{value:.2f}")
        else:
            sign, met = ("≥", value >= ratio.mark) if ratio.of == "events" else ("≤", value <= ratio.mark)
            ratios.add_row(name, f"{value:.2f}", f"{sign} {ratio.mark:g}", "met" if met else "missed")
    out.print(ratios)
    for name, why in (report.failed | report.missing).items():
        out.print(f"{name} has no figures: {why}", markup=False)
