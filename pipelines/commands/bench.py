"""How fast: the way from Kafka to queryable rows, beside its ceiling and its peers."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.commands.options import AsJson
from pipelines.commands.printing import err, out, print_json

if TYPE_CHECKING:
    from pipelines.bench.report import Report

app = typer.Typer()

SOAKED = "wattstream-array"
"""What --soak measures by itself."""


@app.command()
def bench(
    events: Annotated[
        int, typer.Option(min=300_000, help="JSON events to put into Kafka; twice as many in Arrow batches.")
    ] = 5_000_000,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each variant; the median counts.")] = 3,
    only: Annotated[
        str, typer.Option(help="Only these variants, with a comma between; an unknown one lists all.", metavar="NAMES")
    ] = "",
    factors: Annotated[
        bool, typer.Option("--factors", help="Also what more devices, late or broken events and a second worker do.")
    ] = False,
    soak: Annotated[
        int,
        typer.Option(
            min=0, metavar="MINUTES", help="Instead of 30 and 70 %: so long at 70 %, for the slope of the memory."
        ),
    ] = 0,
    dashboards: Annotated[
        int,
        typer.Option(
            min=0, metavar="DAYS", help="Instead: every dashboard's queries on so many days of the simulated network."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure events a second, CPU, memory and freshness against a ceiling and peers; Ctrl-C shows what there is."""
    if dashboards:
        _dashboards(dashboards, as_json)
        return
    from pipelines.bench.run import Bench
    from pipelines.screen import progress_bars

    with progress_bars(err) as progress:
        run = Bench(
            events,
            repeat,
            only=[name for name in (only or (SOAKED if soak else "")).split(",") if name],
            factors=factors,
            soak_seconds=60 * soak,
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


def _dashboards(days: int, as_json: bool) -> None:
    from pipelines.bench.dashboards import MILLISECONDS_MARK, ROWS_MARK, dashboards_on_weeks
    from pipelines.screen import progress_bars

    with progress_bars(err) as progress:
        say = partial(err.print, markup=False, soft_wrap=True)
        report = dashboards_on_weeks(days, say, progress)
    if as_json:
        print_json(report.document())
        return
    table = _table("DAYS", f"Every panel's queries on {report.raw_rows:,} raw rows of {report.days} days", ["DAYS"])
    for title in ("p95, ms", "MOST ROWS READ"):
        table.add_column(title, justify="right")
    for span in report.ranges:
        table.add_row(f"{span:g}", f"{report.p95_ms(span):,.0f}", f"{report.most_rows(span):,}")
    out.print(table)
    for one in report.slow:
        out.print(
            f"{one.dashboard}, {one.panel}, {one.days:g} days: {one.p95_ms:,.0f} ms (mark {MILLISECONDS_MARK}), "
            f"{one.rows_read:,} rows (mark {ROWS_MARK:,})",
            markup=False,
        )


def _show(report: "Report") -> None:
    for names, table in ((report.counted, _speed), (report.at_loads, _loads), (report.ratios(), _ratios)):
        if names:
            out.print(table(report))
    for name in report.counted:
        if steps := report.median(name).steps_s_per_million:
            told = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
            out.print(f"{name}, worker's CPU s a million by step: {told}")
    for name, why in (report.failed | report.missing).items():
        out.print(f"{name} has no figures: {why}", markup=False)


def _speed(report: "Report") -> Table:
    table = _table("VARIANT", "Full speed; CPU s a million events", report.counted)
    for title in ("EVENTS/S", "SPREAD", "WORKER", "BROKER", "SERVER", "PEAK MB"):
        table.add_column(title, justify="right")
    for name in report.counted:
        median = report.median(name)
        cpu = (f"{median.cpu_s_per_million[part]:.2f}" for part in ("worker", "broker", "server"))
        table.add_row(name, f"{median.events_per_s:,.0f}", f"{report.spread(name):.0%}", *cpu, f"{median.peak_mb:,.0f}")
    return table


def _loads(report: "Report") -> Table:
    table = _table("VARIANT", "At a part of its maximum, beside a live producer", report.at_loads)
    for title in ("%", "EVENTS/S", "FRESH p50, s", "p99, s", "CPU s a million", "PEAK MB"):
        table.add_column(title, justify="right")
    for name, of_it in report.at_loads.items():
        for load, found in of_it.items():
            fresh = (f"{found.freshness_p50_s:.2f}", f"{found.freshness_p99_s:.2f}")
            table.add_row(
                name, str(load), f"{found.events_per_s:,.0f}", *fresh, f"{found.cpu_s:.2f}", f"{found.peak_mb:,.0f}"
            )
    return table


def _ratios(report: "Report") -> Table:
    table = _table("RATIO", "Of the medians", report.ratios())
    for title in ("", "MARK", ""):
        table.add_column(title, justify="right")
    for name, (value, ratio) in report.ratios().items():
        if ratio is None or ratio.mark is None:
            table.add_row(name, f"{value:.2f}")
        else:
            sign, met = ("≥", value >= ratio.mark) if ratio.of == "events" else ("≤", value <= ratio.mark)
            table.add_row(name, f"{value:.2f}", f"{sign} {ratio.mark:g}", "met" if met else "missed")
    return table


def _table(first: str, title: str, names: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True, min_width=max(map(len, names), default=0))
    return table
