"""The tables as ClickHouse itself tells of them, held against the event types."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.reference import Column, Table
from schemas import catalog
from schemas.events import EVENT_TYPES, EventType
from schemas.tables import CATALOG, COARSER, HOURLY, ROLLUPS, migrations

ROOT = Path(__file__).parents[2]
CLICKHOUSE = {"time": "DateTime64(9, 'UTC')", "text": "String", "integer": "Int64", "real": "Float64"}
POSITION = {"arrived", "topic_partition", "offset", "place", "identity"}


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """What the migrations make, from an engine in a process of its own: chdb allows one in each."""
    printed = subprocess.run(
        [sys.executable, "-m", "pipelines.reference", "--print", "tables"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = json.loads(printed)
    return {row["name"]: Table(**row | {"columns": tuple(Column(**c) for c in row["columns"])}) for row in rows}


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_table_and_column_has_a_comment(tables: dict[str, Table]) -> None:
    bare = [table.name for table in tables.values() if not table.comment]
    # A view's columns are told of in the comment of the view: ClickHouse keeps none for a parameterised one.
    bare += [
        f"{table.name}.{column.name}"
        for table in tables.values()
        if not table.engine.endswith("View")
        for column in table.columns
        if not column.comment
    ]
    assert bare == []


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.name)
def test_a_raw_table_has_the_event_types_columns(tables: dict[str, Table], event_type: EventType) -> None:
    columns = {column.name: column for column in tables[event_type.name].columns}
    assert set(columns) == set(event_type.columns) | POSITION
    for field in event_type.fields:
        column = columns[field.column]
        bare = column.type.removeprefix("LowCardinality(").removesuffix(")" if "LowCardinality" in column.type else "")
        # Text is never null and a default fills in; what else is not required can be unknown.
        nullable = field.kind != "text" and not field.required and field.default is None
        expected = CLICKHOUSE[field.kind]
        assert bare == (f"Nullable({expected})" if nullable else expected), field.column
        assert column.comment.startswith(field.doc.rstrip(".")), field.column
        if field.unit not in {"", "1", "UTC"}:
            assert f"Unit: {field.unit}." in column.comment, field.column


def test_the_tables_that_are_named_are_there(tables: dict[str, Table]) -> None:
    named = {rollup for rollups in ROLLUPS.values() for rollup in rollups} | set(HOURLY) | set(COARSER)
    assert named <= set(tables)
    assert set(CATALOG) <= set(tables)
    assert [name for name in CATALOG.values() if not callable(getattr(catalog, name, None))] == []


def test_a_rollup_can_be_retaken_and_audited(tables: dict[str, Table]) -> None:
    for rollup in HOURLY:
        columns = {column.name for column in tables[rollup].columns}
        assert {"minute", "topic_partition", "samples", "upto", "arrived_min"} <= columns, rollup
        assert "topic_partition" in tables[rollup].sorting_key, rollup
        assert tables[rollup].engine == "AggregatingMergeTree", rollup


def test_sums_are_integers_so_that_order_cannot_change_them(tables: dict[str, Table]) -> None:
    floats = [
        f"{rollup}.{column.name}: {column.type}"
        for rollup in HOURLY
        for column in tables[rollup].columns
        if "SimpleAggregateFunction(sum" in column.type and "Float" in column.type
    ]
    assert floats == []
