"""What tests of takes and of the ledger share: a worker's two hands on the tables of token events."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import polars as pl

from schemas.events import TOKENS
from schemas.identity import with_identity
from schemas.settings import Settings
from streams.ledger import Claim, Ledger, Position, Range
from streams.takes import Log, Takes

NewPartition = Callable[[], int]
LOG = Log("topic-id", 0, 10**6)


@dataclass(frozen=True)
class Claimant:
    """A worker, as far as it claims and writes."""

    takes: Takes
    ledger: Ledger

    def take(self, number: int, log: Log = LOG, timeout_seconds: float = 10) -> Position:
        """One partition, or why it is not ours raised."""
        outcome = self.takes.take({number: log}, timeout_seconds=timeout_seconds)[number]
        if not isinstance(outcome, Position):
            raise outcome
        return outcome

    def done(self, claim: Claim, first: int, last: int) -> None:
        """A range of one message without events."""
        self.ledger.done({claim.partition: claim}, [Range(claim.partition, first, last, 1, 0, 0, 0, 0, 0, 0)])


def claimant(tables: Settings) -> Claimant:
    """A new one."""
    connect = partial(tables.clickhouse_client, "writer")
    return Claimant(Takes(connect, TOKENS, worker=uuid.uuid4()), Ledger(connect, TOKENS))


def rows(number: int, offsets: range) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "time": [datetime(2026, 1, 1, tzinfo=UTC)] * len(offsets),
            "source": ["s"] * len(offsets),
            "id": [str(offset) for offset in offsets],
            "gateway": ["g"] * len(offsets),
            "arrived": [datetime(2026, 1, 1, tzinfo=UTC)] * len(offsets),
            "offset": list(offsets),
        }
    ).with_columns(topic_partition=pl.lit(number, pl.UInt16), place=pl.lit(0, pl.UInt32))
    return with_identity(TOKENS, frame)


def count(tables: Settings, table: str, number: int) -> int:
    client = tables.clickhouse_client("viewer")
    return client.query(f"SELECT count() FROM {table} WHERE topic_partition = {number}").result_rows[0][0]
