"""Migrations on a real engine: each once, but for views, which are whatever their file says now."""

from collections.abc import Iterator

import pytest

from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep
from pipelines.migrate import migrate
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
