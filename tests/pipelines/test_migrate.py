"""Migrations on a real engine: each once, but for views, which are whatever their file says now."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.httpclient import HttpClient

from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep
from pipelines.migrate import Migrated, migrate
from schemas.errors import WattStreamError
from schemas.settings import Settings
from schemas.tables import CATALOG, migrations


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = Settings(home=tmp_path_factory.mktemp("migrations"), port_base=free_ports(20))
    made.password("writer")
    with EmbeddedClickHouse(made.home, made.port("clickhouse")):
        yield made
    sweep(made.home)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """One for the databases of many releases."""
    made = Settings(home=tmp_path_factory.mktemp("releases"), port_base=free_ports(20))
    with EmbeddedClickHouse(made.home, made.port("clickhouse")):
        yield made
    sweep(made.home)


def test_tables_are_made_once_and_an_old_view_is_replaced(settings: Settings) -> None:
    assert migrate(settings).applied == [migration.name for migration in migrations()]
    client = settings.clickhouse_client("writer")
    client.command("INSERT INTO tenants SELECT * FROM tenants LIMIT 1")
    client.command("CREATE OR REPLACE VIEW energy AS SELECT 1 AS of_an_older_release")
    again = migrate(settings)
    assert (again.applied, again.refreshed) == ([], ["tenants"])
    assert client.query("SELECT count() FROM energy(start = now(), stop = now())").result_rows == [(0,)]
    client.close()


class Killed(BaseException):
    """Stands for kill -9."""


def test_migrations_that_are_killed_after_any_statement_are_brought_to_their_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run dies after the first statement that no run before it came to, the catalogue's included."""
    done: set[str] = set()

    def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: HttpClient, *given: Any, **more: Any) -> Any:
            result = method(self, *given, **more)
            if (what := f"{method.__name__} {given}") not in done:
                done.add(what)
                raise Killed
            return result

        return run

    with monkeypatch.context() as patched:
        for name in ("command", "insert", "insert_arrow"):
            patched.setattr(HttpClient, name, mortal(getattr(HttpClient, name)))
        killed = 0
        while True:
            try:
                migrate(settings)
            except Killed:
                killed += 1
            else:
                break
    assert killed > sum(len(migration.statements) for migration in migrations())
    assert migrate(settings) == Migrated([], [])
    migrate(settings, database="wattstream_clean")
    client = settings.clickhouse_client("writer")
    made = "SELECT name, replaceAll(create_table_query, database || '.', '') FROM system.tables WHERE database = '{}'"
    assert query(client, made.format("wattstream")) == query(client, made.format("wattstream_clean"))
    assert query(client, "SELECT number FROM migrations") == [(migration.number,) for migration in migrations()]
    client.close()


def query(client: Client, statement: str) -> list[Any]:
    return sorted(client.query(statement).result_rows)


def made_by(client: Client, first: int, database: str) -> None:
    """A database as a release with only the first so many migrations left it."""
    client.command(f"CREATE DATABASE {database}")
    client.database = database
    client.command(
        "CREATE TABLE migrations (number UInt32, name String, applied DateTime64(3, 'UTC') DEFAULT now64(3)) "
        "ENGINE = MergeTree ORDER BY number"
    )
    for migration in migrations()[:first]:
        for statement in migration.statements:
            client.command(statement)
        client.insert("migrations", [[migration.number, migration.name]], column_names=["number", "name"])


Columns = dict[str, list[tuple[str, str]]]


def columns(client: Client, database: str) -> Columns:
    """Names and types by table: of those that keep what they are given."""
    rows = client.query(
        "SELECT table, groupArray((name, type)) FROM system.columns WHERE database = {database:String} "
        "AND table IN (SELECT name FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree') "
        "GROUP BY table",
        parameters={"database": database},
    ).result_rows
    return {table: of for table, of in rows if table not in {*CATALOG, "migrations"}}


def fill(client: Client, database: str, of: Columns, seed: int) -> None:
    """The same arbitrary rows for the same seed, twice, so that rollups have something to add up."""
    for table, described in of.items():
        bare = {name: AGGREGATE.sub(r"\1", kind) for name, kind in described}
        structure = ", ".join(f"{name} {kind}" for name, kind in bare.items()).replace("'", "\\'")
        # Whole numbers small, or their sums would be too large; `made` now, or a TTL would take the row.
        whole = {name: f"{name} % 1000000" for name, kind in bare.items() if kind in ("Int64", "Int128")}
        values = [{"made": "now64(3)", **whole}.get(name, name) for name in bare]
        for _ in range(2):
            client.command(
                f"INSERT INTO {database}.{table} ({', '.join(bare)}) "
                f"SELECT {', '.join(values)} FROM generateRandom('{structure}', {seed}, 5, 2) LIMIT 3"
            )


AGGREGATE = re.compile(r"^SimpleAggregateFunction\(\w+, (.*)\)$")


def read(client: Client, database: str, of: Columns) -> dict[str, list[Any]]:
    """All rows by the columns asked for, rollups added up."""
    engines = dict(client.query(f"SELECT name, engine FROM system.tables WHERE database = '{database}'").result_rows)
    found: dict[str, list[Any]] = {}
    for table, described in of.items():
        names = ", ".join(name for name, _ in described if name != "made")
        final = "FINAL" if engines[table] == "AggregatingMergeTree" else ""
        found[table] = query(client, f"SELECT toString(tuple({names})) FROM {database}.{table} {final}")
    return found


@pytest.mark.parametrize("first", range(1, len(migrations())))
def test_an_older_database_is_upgraded_with_all_its_rows_and_takes_what_older_code_writes(
    engine: Settings, first: int
) -> None:
    """Beside a twin that stays as it was."""
    client = engine.clickhouse_client("writer", database="default")
    twin, upgraded = f"wattstream_twin_{first}", f"wattstream_upgraded_{first}"
    for database in (twin, upgraded):
        made_by(client, first, database)
    of = columns(client, twin)
    for database in (twin, upgraded):
        fill(client, database, of, seed=1)
    before = read(client, twin, of)
    assert all(before.values())
    assert read(client, upgraded, of) == before
    assert migrate(engine, database=upgraded).applied == [migration.name for migration in migrations()[first:]]
    assert read(client, upgraded, of) == before
    for database in (twin, upgraded):  # rolled back: the older code on the newest tables
        fill(client, database, of, seed=2)
    assert read(client, upgraded, of) == read(client, twin, of) != before
    client.database = upgraded
    views = client.query(
        "SELECT name, create_table_query LIKE '%{stop:%', create_table_query LIKE '%{start:%', "
        "create_table_query LIKE '%{known:%', "
        "create_table_query LIKE '%{step:%' FROM system.tables "
        f"WHERE database = '{upgraded}' AND engine = 'View'"
    ).result_rows
    assert views
    for view, of_a_time, of_a_span, known_then, in_steps in views:
        more = ", known = '2026-01-02 00:00:00.000'" if known_then else ", step = 3600" if in_steps else ""
        span = f"(start = '2026-01-01 00:00:00', stop = '2026-01-01 01:00:00'{more})" if of_a_span else ""
        span = span or ("(stop = '2026-01-01 01:00:00')" if of_a_time else "")
        client.query(f"SELECT * FROM {view}{span}")
    for database in (twin, upgraded):
        client.command(f"DROP DATABASE {database} SYNC")
    client.close()


def test_a_server_that_refuses_is_told_in_its_words(settings: Settings) -> None:
    client = settings.clickhouse_client("writer", database="default")
    client.command("CREATE DATABASE IF NOT EXISTS wattstream")
    client.command("CREATE VIEW wattstream.migrations AS SELECT 1 AS other")
    with pytest.raises(WattStreamError, match="did not take the migrations"):
        migrate(settings)
    client.close()
