"""Migrations on a real engine: each once, but for views, which are whatever their file says now."""

from collections.abc import Iterator

import pytest

from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep
from pipelines.migrate import migrate
from schemas.errors import WattStreamError
from schemas.settings import Settings
from schemas.tables import migrations


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = Settings(home=tmp_path_factory.mktemp("migrations"), port_base=free_ports(20))
    made.password("writer")
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


def test_migrations_that_were_cut_short_are_brought_to_their_end(settings: Settings) -> None:
    """Killed in the middle of the third: two are written down, of the next one half of the statements have run."""
    done, cut, kept = migrations()[:2], migrations()[2], len(migrations()[2].statements) // 2
    assert kept
    client = settings.clickhouse_client("writer", database="default")
    client.command("CREATE DATABASE IF NOT EXISTS wattstream")
    client.database = "wattstream"
    client.command(
        "CREATE TABLE migrations (number UInt32, name String, applied DateTime64(3, 'UTC') DEFAULT now64(3)) "
        "ENGINE = MergeTree ORDER BY number"
    )
    for migration in done:
        for statement in migration.statements:
            client.command(statement)
        client.insert("migrations", [[migration.number, migration.name]], column_names=["number", "name"])
    for statement in cut.statements[:kept]:
        client.command(statement)
    client.command("CREATE TABLE regions_new (a Int8) ENGINE = MergeTree ORDER BY a")  # left by a refresh
    assert migrate(settings).applied == [migration.name for migration in migrations()[2:]]
    assert migrate(settings).applied == []
    client.close()


def test_a_server_that_refuses_is_told_in_its_words(settings: Settings) -> None:
    client = settings.clickhouse_client("writer", database="default")
    client.command("CREATE DATABASE IF NOT EXISTS wattstream")
    client.command("CREATE VIEW wattstream.migrations AS SELECT 1 AS other")
    with pytest.raises(WattStreamError, match="did not take the migrations"):
        migrate(settings)
    client.close()
