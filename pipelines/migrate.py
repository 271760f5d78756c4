"""Brings ClickHouse's tables up to date: each numbered migration once, then the catalogue's tables from its files."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from schemas import catalog
from schemas.errors import WattStreamError
from schemas.settings import DATABASE, Settings
from schemas.tables import CATALOG, migrations

Say = Callable[[str], None]

_APPLIED = """
CREATE TABLE IF NOT EXISTS migrations
(
    number UInt32 COMMENT 'The migration''s number.',
    name String COMMENT 'Its file''s name.',
    applied DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied.'
)
ENGINE = MergeTree
ORDER BY number
COMMENT 'Which migrations this database has had.'
"""


@dataclass(frozen=True)
class Migrated:
    """What a run did: the migrations applied, and the catalogue tables replaced because their content differed."""

    applied: list[str]
    refreshed: list[str]


def migrate(settings: Settings, say: Say = lambda _: None, *, database: str = DATABASE) -> Migrated:
    """Apply what is missing, and make the views anew, which hold no data; a second run does nothing else.

    ``database`` is made if it isn't there; its name is ours, or begins with ours.

    :raises WattStreamError: naming the migration and what ClickHouse said.
    """
    client = settings.clickhouse_client("writer", database="default")
    try:
        return _migrate(client, say, database)
    except ClickHouseError as error:
        raise WattStreamError(
            f"ClickHouse at {settings.clickhouse_url} did not take the migrations: {error}"
        ) from error
    finally:
        client.close()


def _migrate(client: Client, say: Say, database: str) -> Migrated:
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    client.database = database
    client.command(_APPLIED)
    had = {number for (number,) in client.query("SELECT number FROM migrations").result_rows}
    applied: list[str] = []
    for migration in migrations():
        new = migration.number not in had
        if not new and not migration.views_only:
            continue
        if new:
            say(f"migration {migration.name}")
        for statement in migration.statements:
            try:
                client.command(statement)
            except ClickHouseError as error:
                raise WattStreamError(f"Migration {migration.name} failed: {error}") from error
        if new:
            client.insert("migrations", [[migration.number, migration.name]], column_names=["number", "name"])
            applied.append(migration.name)
    refreshed = [table for table, frame in CATALOG.items() if _refresh(client, table, getattr(catalog, frame)())]
    return Migrated(applied, refreshed)


def _refresh(client: Client, table: str, wanted: pl.DataFrame) -> bool:
    """Replace a catalogue table where it differs, by one exchange, so that no reader sees it empty."""
    client.command(f"DROP TABLE IF EXISTS {table}_new SYNC")  # left by one that was cut short
    stored = pl.DataFrame(pl.from_arrow(client.query_arrow(f"SELECT * FROM {table}", use_strings=True)))  # noqa: S608
    if stored.height == wanted.height:
        alike = stored.select(wanted.columns).cast(wanted.schema)
        if alike.sort(wanted.columns).equals(wanted.sort(wanted.columns)):
            return False
    client.command(f"CREATE TABLE {table}_new AS {table}")
    client.insert_arrow(f"{table}_new", wanted.to_arrow(compat_level=pl.CompatLevel.oldest()))
    client.command(f"EXCHANGE TABLES {table}_new AND {table}")
    client.command(f"DROP TABLE {table}_new SYNC")
    return True
