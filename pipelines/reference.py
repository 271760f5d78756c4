"""The pages and tables of docs/ that are made from the code: ``make docs`` writes them, a test holds them current."""

import argparse
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chdb.session import Session

from schemas.events import EVENT_TYPES, EventType
from schemas.settings import DATABASE, Settings
from schemas.tables import migrations

DICTIONARY = "data-dictionary.md"
OPERATIONS = "operations.md"


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


def tables() -> list[Table]:
    """Every table and view that the migrations make, by name, from an engine of its own: one a process."""
    with TemporaryDirectory() as folder:
        session: Any = Session(folder)
        try:
            session.query(f"CREATE DATABASE {DATABASE}")
            session.query(f"USE {DATABASE}")
            for migration in migrations():
                for statement in migration.statements:
                    session.query(statement)
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
        finally:
            session.close()
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
    parts += ["## Tables\n", f"In the database `{DATABASE}`. `SELECT` on all of it is what the user `viewer` has.\n"]
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
        f"### {event_type.topic}\n\n{event_type.doc} Key: `{by_column[event_type.key].attribute}`. "
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
        unset = field.is_required() or field.default is None
        default = "" if unset else f"`{field.default}`"
        rows.append((f"`WATTSTREAM_{name.upper()}`", default, field.description or ""))
    return _markdown(("variable", "default", "what it says"), rows)


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(folder: Path) -> None:
    """Write the data dictionary into ``folder``, and the made parts of the pages that are there."""
    (folder / DICTIONARY).write_text(dictionary(tables()), encoding="utf-8")
    page = folder / OPERATIONS
    page.write_text(replace(page.read_text(encoding="utf-8"), "settings", settings()), encoding="utf-8")


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
    """Write the made parts, or print the tables as JSON for a test: an engine is one a process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    parser.add_argument("--tables", action="store_true", help="print what ClickHouse says of the tables, write nothing")
    arguments = parser.parse_args()
    if arguments.tables:
        print(json.dumps([asdict(table) for table in tables()]))
    else:
        write(arguments.folder)


if __name__ == "__main__":
    main()
