"""`wattstream deadletters`."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import AsJson, Home, OfTopic, PortBase, moment
from pipelines.commands.printing import err, out, print_json, print_report
from schemas.errors import UsageError
from schemas.events import topic_named

if TYPE_CHECKING:
    from pipelines.deadletters.letters import Choice


app = typer.Typer(
    help="What could not be used: list it, show one, send it again once its cause is mended.", no_args_is_help=True
)

Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Only what arrived since: 2026-05-01T12:00 (UTC), or 30m, 12h, 7d ago.", metavar="TIME"
    ),
]


@app.command("list")
def list_(
    topic: OfTopic = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="How many of the newest to show.")] = 50,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by topic and reason, and list the newest."""
    from pipelines.deadletters.letters import DeadLetters
    from pipelines.deadletters.view import letters_text, list_json
    from pipelines.local.running import settings_of_running

    choice = _choice(topic, None, since)
    with DeadLetters(settings_of_running(home, port_base)) as letters:
        groups = letters.groups(choice)
        newest = letters.newest(choice, limit)
    if as_json:
        print_json(list_json(groups, newest))
    else:  # a file or a pipe has no width to cut to
        typer.echo(letters_text(groups, newest, out.width if out.is_terminal else None))


@app.command()
def show(
    position: Annotated[str, typer.Argument(help="topic/partition/offset/place, as `list` shows it.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes of the payload and nothing else.")] = False,
    home: Home = None,
    port_base: PortBase = None,
    as_json: AsJson = False,
) -> None:
    """Show all of one dead letter: why, when, its key, and its payload."""
    from pipelines.deadletters.letters import DeadLetters, Position
    from pipelines.deadletters.view import letter_json, letter_report, payload_text
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
        print_json(letter_json(letter, whole=True))
    else:
        print_report(letter_report(letter), as_json)
        typer.echo()
        typer.echo(payload_text(letter.payload))


@app.command()
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
    from pipelines.deadletters.letters import DeadLetters, Position
    from pipelines.deadletters.retry import retry as send_again
    from pipelines.deadletters.view import retry_json, retry_report
    from pipelines.local.running import settings_of_running
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
    with progress_bars(err) as progress:
        report = send_again(settings, selected, again=again, dry_run=dry_run, progress=progress)
    if as_json:
        print_json(retry_json(report))
    else:
        for line in retry_report(report):
            typer.echo(line)
    if wanted and report.not_retryable:
        raise typer.Exit(1)


def _choice(topic: str | None, reason: str | None, since: str | None) -> "Choice":
    from pipelines.deadletters.letters import EPOCH, Choice

    return Choice(
        topic_named(topic) if topic is not None else "",
        reason or "",
        moment("--since", since, datetime.now(UTC)) if since is not None else EPOCH,
    )
