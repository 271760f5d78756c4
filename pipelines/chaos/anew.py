# ruff: noqa: S608 (table names are ours)
"""A topic deleted and made anew under a running stack: its partitions must be left alone, and everything else go on.

Offsets of the new topic say nothing about tables that were filled from the old one, so to go on would be to guess.
"""

import contextlib
import random
import time

import httpx
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from pipelines.chaos.breaking import LOOK_SECONDS, RECOVERY_SECONDS, Stack
from pipelines.chaos.report import Anew
from pipelines.topics import create_topics
from schemas.errors import WattStreamError
from schemas.events import EVENT_TYPES
from schemas.settings import Settings

_TIMEOUT_SECONDS = 30.0


def make_anew(stack: Stack, moments: random.Random) -> Anew:
    """Delete one of the topics that have rows, create it again, and see that just its partitions are halted.

    :raises WattStreamError: where they aren't, its table changes all the same, or nothing else moves any more.
    """
    settings = stack.settings
    client = settings.clickhouse_client("viewer")
    event_type = moments.choice([one for one in EVENT_TYPES if _rows(client, one.name)])
    topic = event_type.topic
    _delete_and_create(settings, topic)
    begun = time.monotonic()
    wanted = {f"{topic}/{partition}" for partition in range(settings.partitions)}
    while (halted := _halted(stack)) != wanted:
        if time.monotonic() - begun > RECOVERY_SECONDS:
            raise WattStreamError(f"{topic} was made anew: halted are {sorted(halted)}, not {sorted(wanted)}")
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - begun
    rows, others = _rows(client, event_type.name), _done_elsewhere(client, topic)
    until = time.monotonic() + RECOVERY_SECONDS
    while _done_elsewhere(client, topic) == others:
        if time.monotonic() > until:
            raise WattStreamError(f"{topic} was made anew: no other topic moves any more either")
        time.sleep(LOOK_SECONDS)
    if (now := _rows(client, event_type.name)) != rows:
        raise WattStreamError(f"{topic} was made anew and is halted, yet {event_type.name} went from {rows} to {now}")
    return Anew(topic, round(seconds, 1))


def _delete_and_create(settings: Settings, topic: str) -> None:
    admin = AdminClient(settings.kafka_client() | {"log_level": 0})
    admin.delete_topics([topic], operation_timeout=_TIMEOUT_SECONDS)[topic].result()
    until = time.monotonic() + _TIMEOUT_SECONDS
    while topic not in create_topics(settings):  # for a moment the broker still tells of the deleted one
        if time.monotonic() > until:
            raise WattStreamError(f"{topic} was deleted, and can't be made anew")
        time.sleep(LOOK_SECONDS)


def _halted(stack: Stack) -> set[str]:
    """Over all workers, TOPIC/PARTITION."""
    found: set[str] = set()
    for unit in stack.units("worker"):
        with contextlib.suppress(httpx.HTTPError):
            found |= httpx.get(f"{unit.server.url}/health", timeout=3.0, trust_env=False).json()["halted"].keys()
    return found


def _rows(client: Client, table: str) -> int:
    return client.query(f"SELECT count() FROM {table}").result_rows[0][0]


def _done_elsewhere(client: Client, topic: str) -> int:
    return client.query(
        "SELECT sum(messages) FROM ingest_ranges WHERE topic != {topic:String}", parameters={"topic": topic}
    ).result_rows[0][0]
