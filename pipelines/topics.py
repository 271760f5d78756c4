"""The Kafka topics of the event types, on the embedded broker and on a cluster of your own alike."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage]
)

from schemas.brokers import why
from schemas.errors import WattStreamError
from schemas.events import BY_TOPIC, OUTPUT_TOPICS
from schemas.settings import Settings
from schemas.versions import ARRIVAL, CLOCK, at, configurations, version_in_use

ALL_TOPICS = (*BY_TOPIC, *OUTPUT_TOPICS)
"""Those of a Kafka that is new."""

_TIMEOUT_SECONDS = 30.0
_REACH_SECONDS = 10.0
_LEADER_SECONDS = 60.0
_LOOK_SECONDS = 3.0


def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing and check those that are there; returns the names of the created ones.

    A topic that exists keeps its partitions: their number is fixed for its version.

    :raises WattStreamError: where Kafka can't be reached or refuses, or an existing topic has no LogAppendTime.
    """
    admin = AdminClient(settings.kafka_client() | {"log_level": 0})  # errors are raised, not printed too
    try:
        existing = admin.list_topics(timeout=_REACH_SECONDS).topics
        wanted = [*(event_type.topic for event_type in at(version_in_use(admin, existing))), *OUTPUT_TOPICS]
        missing = [name for name in wanted if name not in existing]
        _check_clock(admin, [name for name in wanted if name in existing])
        create(
            admin,
            [NewTopic(name, settings.partitions, settings.replication, config=_config(settings)) for name in missing],
        )
        return missing
    except KafkaException as error:
        raise WattStreamError(
            f"Kafka at {settings.bootstrap} did not create the topics: {why(settings, error)}. "
            "Is it running (wattstream status), and may this user create topics?"
        ) from error


def create(admin: AdminClient, new: Sequence[NewTopic]) -> None:
    """Create topics, those that are there left out.

    :raises KafkaException: where Kafka refuses.
    """
    if not new:
        return
    for future in admin.create_topics(list(new), operation_timeout=_TIMEOUT_SECONDS).values():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another part was first
                raise


def wait_for_leaders(client: Mapping[str, Any], places: Iterable[TopicPartition]) -> None:
    """A topic that was made just now is known before its partitions answer.

    Each look is short and a client's first: one that heard of a topic too early was seen to hold on to that for all
    of its 30 s, on a busy machine.

    :raises KafkaException: where they don't in ``_LEADER_SECONDS``.
    """
    until = time.monotonic() + _LEADER_SECONDS
    asked: dict[TopicPartition, Any] = dict.fromkeys(places, OffsetSpec.latest())
    while True:
        admin = AdminClient({**client, "log_level": 0})
        try:
            for answer in admin.list_offsets(asked, request_timeout=_LOOK_SECONDS).values():
                answer.result()
            return
        except KafkaException:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def _config(settings: Settings) -> dict[str, str]:
    config = {
        # The broker's arrival time is the one clock that a replay sees again.
        CLOCK: ARRIVAL,
        "compression.type": "producer",
        "max.message.bytes": str(settings.message_max_bytes),
    }
    if settings.kafka is None:
        config |= {"retention.ms": "-1", "retention.bytes": "-1"}
    if settings.replication >= 3:
        config["min.insync.replicas"] = "2"
    return config


def _check_clock(admin: AdminClient, names: list[str]) -> None:
    for name, config in configurations(admin, names).items():
        if config[CLOCK] != ARRIVAL:
            raise WattStreamError(
                f"Topic {name} exists with message.timestamp.type other than LogAppendTime: arrival times "
                "would be the producers' and a replay could decide differently. Set it before any event is sent."
            )
