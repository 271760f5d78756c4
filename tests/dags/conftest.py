"""A real engine with the tables, for all tests of plans."""

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from dags.clickhouse import Warehouse
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep
from pipelines.migrate import migrate
from schemas.settings import Settings
from schemas.tables import CATALOG


@pytest.fixture(scope="session")
def engine_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a stack of which only ClickHouse runs, all migrations applied."""
    settings = Settings(home=tmp_path_factory.mktemp("planning"), port_base=free_ports(20))
    settings.password("writer")
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        migrate(settings)
        yield settings
    sweep(settings.home)


@pytest.fixture(scope="module")
def client(engine_settings: Settings) -> Iterator[Client]:
    """The writer's client; every table but the catalogue's is empty at first."""
    client = engine_settings.clickhouse_client("writer")
    kept = {"migrations", *CATALOG}
    tables = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND endsWith(engine, 'MergeTree')"
    ).result_columns[0]
    for table in set(tables) - kept:
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def warehouse(client: Client, engine_settings: Settings) -> Iterator[Warehouse]:
    """What the planner sees of it."""
    with Warehouse.of(engine_settings) as opened:
        yield opened
