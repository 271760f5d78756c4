"""The stack: start, stop, look at, bring up to date, examine and break it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipelines.commands.options import AsJson, Home, PortBase
from pipelines.commands.printing import err, out, print_json, print_report
from pipelines.local.state import StackFiles
from schemas.settings import load

app = typer.Typer()


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
        with err.status("Starting …") as status:
            snapshot = start_in_background(settings, lambda seen: status.update(_progress(seen)))
        out.print(picture(settings.home.resolve(), snapshot, None))
        return
    if out.is_terminal:
        stack = supervisor_of(settings)
        with live_screen(settings, out, stack.snapshot):
            run_until_signalled(stack)
    else:
        run_until_signalled(supervisor_of(settings, say=lambda message: print(message, flush=True)))


@app.command()
def down(home: Home = None) -> None:
    """Stop the stack of this home and whatever is left of it."""
    from pipelines.local.running import take_down

    stopped = take_down(load(home=home))
    out.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


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
        print_json(report(settings, numbers, secrets))
        return
    out.print(picture(settings.home.resolve(), StackFiles(settings.home).read(), numbers))


@app.command()
def migrate(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Bring ClickHouse's tables and Kafka's topics up to date; safe to repeat."""
    from pipelines.local.running import settings_of_running
    from pipelines.migrate import migrate as migrate_tables
    from pipelines.topics import create_topics

    settings = settings_of_running(home, port_base)
    topics = create_topics(settings)
    print_report({"topics": topics, "tables": migrate_tables(settings)}, as_json)


@app.command()
def doctor(home: Home = None, port_base: PortBase = None, as_json: AsJson = False) -> None:
    """Check ports, disk, memory, versions and addresses, and say what to do about what is off."""
    from pipelines.doctor import examine

    findings = examine(load(home=home, port_base=port_base))
    if as_json:
        print_json(
            {"ok": all(finding.level != "fail" for finding in findings), "checks": [asdict(f) for f in findings]}
        )
    else:
        marks = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        for finding in findings:
            out.print(f"{marks[finding.level]} {finding.name:<10}", escape(finding.found))
            if finding.advice:
                out.print(" " * 16 + escape(finding.advice))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


@app.command()
def chaos(
    rounds: Annotated[int, typer.Option(help="How many faults, of every kind as often, in random order.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the moments and the order.")] = 1,
    only: Annotated[str, typer.Option(help="Only faults whose name has this in it, such as 'disk full'.")] = "",
    rate: Annotated[float, typer.Option(help="Events a second of the simulated network meanwhile.")] = 15_000,
    workers: Annotated[int, typer.Option(min=2, max=9, help="Stream workers.")] = 2,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of a topic.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Break a stack of its own at random moments under live load; 1 where an event is lost or twice."""
    from pipelines.chaos.run import chaos as break_things
    from pipelines.screen import progress_bars, recoveries

    with progress_bars(err) as progress:
        report = break_things(
            rounds,
            seed,
            only=only,
            rate=rate,
            workers=workers,
            partitions=partitions,
            say=err.print,
            progress=progress,
        )
    if as_json:
        more = {"recoveries": [asdict(one) for one in report.recoveries], "worker_p50_s": report.worker_p50_s}
        print_json(asdict(report) | more)
    else:
        out.print(recoveries(report))
        found = asdict(report) | {"worker_p50_s": report.worker_p50_s}
        print_report({name: value for name, value in found.items() if name != "rounds"}, as_json)
    if not report.holds:
        raise typer.Exit(1)


def _progress(snapshot: dict[str, Any]) -> str:
    if snapshot["download"]:
        done, total = snapshot["download"]
        return f"Downloading Kafka's jars, once: {done / 1e6:.0f} of {total / 1e6:.0f} MB"
    pending = [name for name, part in snapshot["parts"].items() if part["state"] not in ("running", "external")]
    return f"Starting {', '.join(pending)} …"
