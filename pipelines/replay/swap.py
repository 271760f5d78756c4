"""Puts the tables of a replay in the place of ours: one EXCHANGE a table, under claims on all partitions.

1. **Intent.** The tables and their ids are written to `swaps`. From here on a worker that takes a partition sees it and
   waits, whatever its claim.
2. **Claims** on every partition: whoever took one before the intent is fenced, and what it still inserts is waited for.
3. **Catch up** past all that our tables hold, flushes that were cut short included: no reader sees fewer rows.
4. **Exchange**, table by table. Each by itself is atomic, and no query fails; the ledger goes last.
5. **Done** is written, and the workers go on.

A crash before 4 leaves an intent that the next `wattstream replay --swap` takes up from 2; one within 4 is resumed by
the ids: a table that still has its own is exchanged.
"""

import fcntl
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from clickhouse_connect.driver.client import Client

from schemas.errors import WattStreamError
from schemas.events import EVENT_TYPES, EventType
from schemas.settings import DATABASE, Settings
from schemas.tables import ROLLUPS
from streams.failpoints import failpoint
from streams.ledger import Halt, Position
from streams.swaps import Intent, open_intent
from streams.takes import Log, Takes

TABLES = (
    *(event_type.name for event_type in EVENT_TYPES),
    *(table for tables in ROLLUPS.values() for table in tables),
    "deadletters",
    "ingest_ranges",
)
"""What a replay makes anew, in the order of their exchange."""

_CLAIM_SECONDS = 30.0
_TAG = "wattstream-exchange"


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """One replay at a time: two that exchange would put the tables back again. The kernel frees a killed one's lock.

    :raises WattStreamError: where another is at it.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "replay.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WattStreamError("Another replay is under way in this home: wait for it to end.") from error
        yield


def begin(client: Client, replayed: str) -> Intent:
    """Step 1.

    :raises WattStreamError: where a table is missing.
    """
    ours, theirs = (_ids(client, database) for database in (DATABASE, replayed))
    missing = [table for table in TABLES if table not in ours or table not in theirs]
    if missing:
        raise WattStreamError(f"{', '.join(missing)} is not in both databases: `wattstream migrate`, then replay anew.")
    intent = Intent(uuid.uuid4(), replayed, [(table, ours[table], theirs[table]) for table in TABLES])
    _write(client, intent, "begun")
    return intent


def exchanged(client: Client, intent: Intent) -> int:
    """How many tables are exchanged already; what a killed process had sent may still be under way, and is waited for.

    :raises WattStreamError: where that takes too long.
    """
    _wait_for_exchanges(client)
    ours = _ids(client, DATABASE)
    return sum(ours.get(table) == theirs for table, _, theirs in intent.tables)


def claim_all(
    settings: Settings, logs: Mapping[EventType, Mapping[int, Log]], say: Callable[[str], None]
) -> dict[tuple[str, int], int]:
    """Step 2: by topic and partition, the first offset of which our tables hold nothing.

    :raises WattStreamError: where workers claim faster than we do.
    """
    owner = uuid.uuid4()
    connect = partial(settings.clickhouse_client, "writer")
    ends: dict[tuple[str, int], int] = {}
    for event_type, found in logs.items():
        takes = Takes(connect, event_type, worker=owner)
        # Where the log ends was read while workers still moved their positions: it can't be held against those.
        missing = {partition: replace(log, end=sys.maxsize) for partition, log in found.items()}
        until = time.monotonic() + _CLAIM_SECONDS
        while missing:
            held = takes.hold(missing, timeout_seconds=settings.clickhouse_timeout_seconds)
            for partition, outcome in held.items():
                if isinstance(outcome, Position):
                    ends[event_type.topic, partition] = outcome.reach
                    del missing[partition]
                elif isinstance(outcome, Halt):
                    raise outcome
                elif time.monotonic() > until:
                    raise WattStreamError(f"{outcome}: it can't be claimed for the swap. Try again.") from outcome
                else:
                    say(str(outcome))
    return ends


def exchange(
    client: Client, intent: Intent, say: Callable[[str], None], then: Callable[[], None] = lambda: None
) -> None:
    """Steps 4 and 5, with ``then`` between them.

    :raises WattStreamError: where a table is neither of the two, or an exchange of before is still under way.
    """
    _wait_for_exchanges(client)
    for table, mine, theirs in intent.tables:
        now = _ids(client, DATABASE).get(table)
        if now not in (mine, theirs):
            raise WattStreamError(
                f"{DATABASE}.{table} is neither of the two tables that were to be exchanged: somebody made it anew in "
                "the middle of a swap. Nothing more is done; see docs/operations.md, Replay."
            )
        if now == mine:
            failpoint("before-exchange")
            still = open_intent(client)
            if still is None or still.swap != intent.swap:
                raise WattStreamError("Another process has given this swap up. Nothing more is exchanged; try again.")
            client.command(
                f"EXCHANGE TABLES {DATABASE}.{table} AND {intent.replayed}.{table}", settings={"log_comment": _TAG}
            )
            say(f"exchanged {table}")
            failpoint(f"after-exchange-{table}")
    then()
    _write(client, intent, "done", intent.replayed)  # what is there now has served: it is not to be filled again
    _write(client, intent, "done")


def _wait_for_exchanges(client: Client) -> None:
    """What a killed process had sent may still be under way: sent again meanwhile, it would be undone."""
    running = (
        "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {tag:String} AND is_initial_query "
        "AND user = currentUser() AND Settings['readonly'] IN ('', '0')"  # who only reads can give it to any query
    )
    until = time.monotonic() + _CLAIM_SECONDS
    while client.query(running, parameters={"tag": _TAG}).result_rows[0][0]:
        if time.monotonic() > until:
            raise WattStreamError("ClickHouse is still at an exchange of before. Try again when it has ended.")
        time.sleep(0.05)


def abandon(client: Client, intent: Intent) -> None:
    """Let the workers go on with our tables: only before anything was exchanged."""
    _write(client, intent, "abandoned")


def _ids(client: Client, database: str) -> dict[str, uuid.UUID]:
    rows = client.query(
        "SELECT name, uuid FROM system.tables WHERE database = {database:String}", parameters={"database": database}
    ).result_rows
    return {name: uuid.UUID(str(found)) for name, found in rows}


def _write(client: Client, intent: Intent, phase: str, database: str = DATABASE) -> None:
    client.command(
        f"INSERT INTO {database}.swaps (swap, replayed, tables, phase) "
        "SELECT {swap:UUID}, {replayed:String}, "
        "arrayMap(t -> (t.1, toUUID(t.2), toUUID(t.3)), JSONExtract({tables:String}, "
        "'Array(Tuple(String, String, String))')), {phase:String}",
        parameters={
            "swap": str(intent.swap),
            "replayed": intent.replayed,
            "tables": json.dumps([[name, str(ours), str(theirs)] for name, ours, theirs in intent.tables]),
            "phase": phase,
        },
    )
