"""The exchange of all tables for those of a replay, as it is written down: who takes a partition must see it first."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from schemas.settings import DATABASE

REPARTITIONED = f"{DATABASE}_repartitioned"
"""The database that `wattstream repartition` fills."""


@dataclass(frozen=True)
class Intent:
    """An exchange that was written down: of each table its name, our id and theirs."""

    swap: uuid.UUID
    replayed: str
    tables: Sequence[tuple[str, uuid.UUID, uuid.UUID]]

    @property
    def finish(self) -> str:
        """The command that ends it where its process has died."""
        if self.replayed == REPARTITIONED:
            return "wattstream repartition"
        return f"wattstream replay --into {self.replayed} --swap"


def open_intent(client: Client) -> Intent | None:
    """The one that is neither done nor abandoned."""
    rows = client.query(
        "SELECT swap, any(replayed), any(arrayMap(t -> (t.1, toString(t.2), toString(t.3)), tables)) "
        "FROM swaps GROUP BY swap HAVING countIf(phase != 'begun') = 0"
    ).result_rows
    if not rows:
        return None
    swap, replayed, tables = rows[0]
    return Intent(swap, replayed, [(name, uuid.UUID(ours), uuid.UUID(theirs)) for name, ours, theirs in tables])
