"""What in docs/ and deploy/ is made from the code: ``make docs`` writes it, a test holds it current."""

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

from chdb.session import Session
from typer.main import get_command

from pipelines.cli import app
from pipelines.local.access import DEFAULTS, GRANTS
from schemas.events import EVENT_TYPES, EventType
from schemas.settings import DATABASE, USERS, Settings
from schemas.tables import migrations

DICTIONARY = Path("docs/data-dictionary.md")
OPERATIONS = Path("docs/operations.md")
CLICKHOUSE_USERS = Path("deploy/clickhouse-users.xml")


@dataclass(frozen=True)
class Column:
    """A column as ClickHouse tells of it."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Table:
    """A table or view as ClickHouse tells of it."""

    name: str
    engine: str
    comment: str
    partition_key: str
    sorting_key: str
    columns: tuple[Column, ...]


@contextmanager
def engine() -> Iterator[Any]:
    """A chdb session in which the migrations have run, for as long as it is used; a process can have one engine."""
    with TemporaryDirectory() as folder:
        session: Any = Session(folder)
        try:
            session.query(f"CREATE DATABASE {DATABASE}")
            session.query(f"USE {DATABASE}")
            for migration in migrations():
                for statement in migration.statements:
                    session.query(statement)
            yield session
        finally:
            session.close()


def tables() -> list[Table]:
    """Every table and view that the migrations make, by name."""
    with engine() as session:
        described = _rows(
            session,
            "SELECT name, engine, comment, partition_key, sorting_key FROM system.tables "
            "WHERE database = currentDatabase() ORDER BY name",
        )
        columns = _rows(
            session,
            "SELECT table, name, type, comment FROM system.columns "
            "WHERE database = currentDatabase() ORDER BY table, position",
        )
    by_table: dict[str, list[Column]] = {}
    for row in columns:
        by_table.setdefault(row.pop("table"), []).append(Column(**row))
    return [Table(**row, columns=tuple(by_table.get(row["name"], ()))) for row in described]


def _rows(session: Any, query: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in session.query(query, "JSONEachRow").bytes().splitlines()]


def dictionary(described: list[Table]) -> str:
    """The data dictionary: every event type by its fields, every table by its columns."""
    parts = [
        "# Data dictionary\n",
        "Made from schemas/events.py and the tables' own comments by `make docs`. Tokens are integers, time is UTC.\n",
        "## Events\n",
        "A message carries one CloudEvents JSON event, a JSON array of them, or an Arrow IPC stream, by attribute. "
        "The key belongs to the message; two events of equal identity are one event.\n",
    ]
    parts += [_event(event_type) for event_type in EVENT_TYPES]
    parts += [
        "## Tables\n",
        f"In the database `{DATABASE}`. `SELECT` on all of it is what the user `viewer` has. "
        "The views `…_known` tell what a roll-up said at a time: [a query](architecture.md#as-it-was-known-then).\n",
    ]
    parts += [_table(table) for table in described]
    return "\n".join(parts)


def _event(event_type: EventType) -> str:
    rows = [
        (
            f"`{field.attribute}`",
            f"`{field.column}`",
            field.kind,
            field.unit,
            "yes" if field.required else "" if field.default is None else f"else {field.default}",
            field.doc,
        )
        for field in event_type.fields
    ]
    by_column = event_type.columns
    needs = " or ".join(f"`{by_column[column].attribute}`" for column in event_type.any_of)
    return (
        f"### {event_type.type}\n\n{event_type.doc} Key: `{by_column[event_type.key].attribute}`. "
        f"Identity: {', '.join(f'`{by_column[column].attribute}`' for column in event_type.identity)}."
        + (f" Needs at least one of {needs}." if needs else "")
        + "\n\n"
        + _markdown(("attribute", "column", "kind", "unit", "required", "what it is"), rows)
    )


def _table(table: Table) -> str:
    order = f" Ordered by `{table.sorting_key}`." if table.sorting_key else ""
    months = f" Partitioned by `{table.partition_key}`." if table.partition_key else ""
    columns = _markdown(
        ("column", "type", "what it is"),
        [(f"`{column.name}`", f"`{column.type}`", column.comment) for column in table.columns],
    )
    return f"### {table.name}\n\n{table.comment} `{table.engine}`.{order}{months}\n" + (
        f"\n{columns}" if table.columns else ""
    )


def settings() -> str:
    """Every setting: its variable, what it is when not given, and what it says."""
    rows: list[tuple[str, ...]] = []
    for name, field in Settings.model_fields.items():
        unset = field.is_required() or field.default is None or field.default_factory is not None
        default = "" if unset else f"`{field.default}`"
        rows.append((f"`WATTSTREAM_{name.upper()}`", default, field.description or ""))
    return _markdown(("variable", "default", "what it says"), rows)


def commands() -> str:
    """Every command of the command line, with what it takes and does."""
    rows: list[tuple[str, ...]] = []
    for path, command in _commands(get_command(app), "wattstream"):
        words = [_usage(parameter) for parameter in command.params if parameter.name != "help"]
        rows.append((f"`{' '.join([path, *words])}`", command.get_short_help_str(300)))
    return _markdown(("command", "what it does"), rows)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children: dict[str, Any] = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from _commands(child, f"{path} {name}")


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.name.upper() if parameter.required else f"[{parameter.name.upper()} …]"
    name: str = max(parameter.opts, key=len)
    return f"[{name}]" if parameter.is_flag else f"[{name} {parameter.metavar or parameter.name.upper()}]"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def clickhouse_users() -> str:
    """A users file for a ClickHouse server of your own: the three users, with the grants of the embedded one."""
    lines = [
        "<!-- Made by `make docs` from pipelines/local/access.py: the users a ClickHouse server of your own needs.",
        "     It belongs into users.d, and the passwords into the server's environment. -->",
        "<clickhouse>",
        "    <profiles>",
    ]
    for user in USERS:
        # A flush of many years is legal, and the server refuses more than 100 parts in a block by default.
        settings = {name: value.decode() for name, value in DEFAULTS[user].items()}
        settings |= {} if user == "viewer" else {"max_partitions_per_insert_block": "0"}
        lines.append(f"        <wattstream_{user}>")
        lines += [f"            <{name}>{value}</{name}>" for name, value in settings.items()]
        lines.append(f"        </wattstream_{user}>")
    lines += ["    </profiles>", "    <users>"]
    for user in USERS:
        lines += [
            f"        <{user}>",
            f'            <password from_env="WATTSTREAM_CLICKHOUSE_{user.upper()}_PASSWORD"/>',
            "            <networks><ip>::/0</ip></networks>",
            f"            <profile>wattstream_{user}</profile>",
            "            <quota>default</quota>",
            "            <grants>",
            *(f"                <query>GRANT {escape(grant)}</query>" for grant in GRANTS[user]),
            "            </grants>",
            f"        </{user}>",
        ]
    lines += ["    </users>", "</clickhouse>"]
    return "\n".join(lines) + "\n"


def made(root: Path) -> dict[Path, str]:
    """Every file that is made, whole or in part, by its path from ``root``, as it should read."""
    operations = (root / OPERATIONS).read_text(encoding="utf-8")
    return {
        DICTIONARY: dictionary(tables()),
        OPERATIONS: replace(replace(operations, "settings", settings()), "commands", commands()),
        CLICKHOUSE_USERS: clickhouse_users(),
    }


def replace(page: str, name: str, made: str) -> str:
    """``page`` with what stands between the marks of ``name`` replaced.

    :raises ValueError: where the page has not one pair of such marks.
    """
    pattern = re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    new, count = pattern.subn(lambda marks: marks[1] + made + marks[2], page)
    if count != 1:
        raise ValueError(f"{count} places are marked for {name!r}, not one")
    return new


def main() -> None:
    """Write what is made from the code; or print, as JSON, the tables or what is made, and write nothing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder")
    parser.add_argument("--print", choices=["tables", "made"], help="print this, write nothing")
    arguments = parser.parse_args()
    if arguments.print == "tables":
        print(json.dumps([asdict(table) for table in tables()]))
    elif arguments.print == "made":
        print(json.dumps({str(path): text for path, text in made(arguments.root).items()}))
    else:
        for path, text in made(arguments.root).items():
            (arguments.root / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
