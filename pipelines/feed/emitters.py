"""Who is expected to be heard: the registration that completeness is measured against (table emitters)."""

from datetime import UTC, datetime

import polars as pl
from clickhouse_connect.driver.client import Client

NO_END = datetime(2106, 2, 7, tzinfo=UTC)
"""``until`` of an emitter that is expected for good."""

EMITTERS_SCHEMA = pl.Schema(
    {
        "topic": pl.String(),
        "site": pl.String(),
        "node": pl.String(),
        "emitter": pl.String(),
        "interval_seconds": pl.Int64(),
        "since": pl.Datetime("ms", "UTC"),
        "until": pl.Datetime("ms", "UTC"),
    }
)
"""Columns as in the table; one row an emitter and span of time; ``topic`` is the event type's name."""

_KEY = ["topic", "site", "node", "emitter", "since"]


def register(client: Client, emitters: pl.DataFrame) -> int:
    """Register emitters that aren't yet, or differ in interval or end; returns how many rows were written.

    :param client: of the user writer.
    :param emitters: as EMITTERS_SCHEMA, in any order and number type; seconds count, finer times are cut.
    """
    missing = conform(emitters).join(registered(client), on=list(EMITTERS_SCHEMA), how="anti")
    if missing.is_empty():
        return 0
    data = [missing.get_column(name).to_list() for name in EMITTERS_SCHEMA]
    client.insert("emitters", data, column_names=list(EMITTERS_SCHEMA), column_oriented=True)
    return missing.height


def conform(emitters: pl.DataFrame) -> pl.DataFrame:
    """The columns and types of EMITTERS_SCHEMA, in its order."""
    typed = emitters.select(pl.col(name).cast(kind) for name, kind in EMITTERS_SCHEMA.items())
    return typed.with_columns(pl.col("since", "until").dt.truncate("1s"))


def registered(client: Client) -> pl.DataFrame:
    """What is registered, the newest registration of each, as EMITTERS_SCHEMA."""
    newest = client.query(
        "SELECT topic, site, node, emitter, argMax(interval_seconds, registered), since, argMax(until, registered) "
        "FROM emitters GROUP BY topic, site, node, emitter, since"
    )
    frame = pl.DataFrame(newest.result_rows, schema=list(EMITTERS_SCHEMA), orient="row", infer_schema_length=None)
    times = [pl.col(name).dt.replace_time_zone("UTC") for name in ("since", "until") if frame.height]
    return conform(frame.with_columns(times))
