"""The topics of the next version: made for a copy, with the producers' clock, and then put in the place of the old."""

import time
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,  # pyright: ignore[reportPrivateImportUsage]
    ConfigEntry,  # pyright: ignore[reportPrivateImportUsage]
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from pipelines.topics import create, wait_for_leaders
from schemas.errors import WattStreamError
from schemas.events import EventType
from schemas.settings import Settings
from schemas.versions import ARRIVAL, CLOCK, configurations

LIMIT = "max.message.bytes"
_CLOSED = "0"
_RETENTION = ("retention.ms", "retention.bytes")
_TOPIC_CONFIG = 1  # ConfigSource.DYNAMIC_TOPIC_CONFIG: what was set for the topic itself
_TIMEOUT_SECONDS = 30.0


def make(
    admin: AdminClient, settings: Settings, old: Sequence[EventType], new: Sequence[EventType], count: int
) -> None:
    """Create what is missing of the new topics, with the settings of the old and ``count`` partitions.

    Until they are taken into use they keep the time that a message is given, and everything.

    :raises KafkaException: where Kafka refuses.
    """
    known = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
    filled = {CLOCK: "CreateTime"} | dict.fromkeys(_RETENTION, "-1")
    create(
        admin,
        [
            NewTopic(
                after.topic,
                count,
                len(known[before.topic].partitions[0].replicas),
                config=_own(admin, before.topic) | {LIMIT: _limit(admin, settings, before.topic)} | filled,
            )
            for before, after in zip(old, new, strict=True)
            if after.topic not in known
        ],
    )
    wait_for_leaders(settings.kafka_client(), (TopicPartition(after.topic, n) for after in new for n in range(count)))


def drop(admin: AdminClient, topics: Iterable[str]) -> None:
    """Delete topics and wait until they are gone.

    :raises KafkaException: where Kafka refuses.
    """
    gone = set(topics)
    if not gone:
        return
    for deleted in admin.delete_topics(list(gone), operation_timeout=_TIMEOUT_SECONDS).values():
        deleted.result()
    until = time.monotonic() + _TIMEOUT_SECONDS
    while gone & admin.list_topics(timeout=_TIMEOUT_SECONDS).topics.keys():
        if time.monotonic() > until:
            raise WattStreamError(f"Kafka has deleted {', '.join(sorted(gone))}, but still lists them. Try again.")
        time.sleep(0.1)


def close(admin: AdminClient, old: Sequence[EventType]) -> None:
    """From here on the old topics take nothing: who sends to them is told so.

    :raises KafkaException: where Kafka refuses.
    """
    names = [before.topic for before in old]
    _set(admin, {name: {LIMIT: _CLOSED} for name in names})
    until = time.monotonic() + _TIMEOUT_SECONDS
    while {config[LIMIT] for config in configurations(admin, names).values()} != {_CLOSED}:
        if time.monotonic() > until:
            raise WattStreamError(f"{names[0]} and others are closed, but Kafka doesn't say so yet. Try again.")
        time.sleep(0.1)


def open_again(admin: AdminClient, settings: Settings, old: Sequence[EventType]) -> None:
    """The old topics take messages as before.

    :raises KafkaException: where Kafka refuses.
    """
    limits = {before.topic: _limit(admin, settings, before.at(before.version + 1).topic) for before in old}
    _set(admin, {name: {LIMIT: limit} for name, limit in limits.items()})


def take_into_use(admin: AdminClient, old: Sequence[EventType], new: Sequence[EventType]) -> None:
    """The broker's clock from now on; what is there keeps its time. Then retention as the old topics have it.

    :raises KafkaException: where Kafka refuses.
    """
    _set(admin, {after.topic: {CLOCK: ARRIVAL} for after in new})
    kept = {before.topic: _own(admin, before.topic) for before in old}
    _set(
        admin,
        {
            after.topic: {name: kept[before.topic].get(name) for name in _RETENTION}
            for before, after in zip(old, new, strict=True)
        },
    )


def _own(admin: AdminClient, topic: str) -> dict[str, str]:
    """What was set for the topic itself."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource].result()
    return {name: entry.value for name, entry in found.items() if entry.source == _TOPIC_CONFIG}


def _limit(admin: AdminClient, settings: Settings, topic: str) -> str:
    """The largest message; that of a topic which is closed is in its successor, or as a new one has it."""
    limit = _own(admin, topic).get(LIMIT, _CLOSED)
    return str(settings.message_max_bytes) if limit == _CLOSED else limit


def _set(admin: AdminClient, wanted: Mapping[str, Mapping[str, str | None]]) -> None:
    """None takes away what is set."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(
                    name,
                    value,
                    incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
                )
                for name, value in entries.items()
            ],
        )
        for topic, entries in wanted.items()
    ]
    for altered in admin.incremental_alter_configs(resources, request_timeout=_TIMEOUT_SECONDS).values():
        altered.result()
