"""Which version of the topics is in use: Kafka is asked, since the log is the truth of what the tables are made of.

A version that is still being filled keeps the arrival times of the one before, so its topics have the producers' clock;
in use is the highest version of which every topic has the broker's (LogAppendTime). All input topics change at once.
"""

import re
from collections.abc import Iterable
from typing import Any, cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from schemas.brokers import why
from schemas.errors import WattStreamError
from schemas.events import BY_NAME, EVENT_TYPES, EventType
from schemas.settings import Settings

CLOCK = "message.timestamp.type"
ARRIVAL = "LogAppendTime"

_TIMEOUT_SECONDS = 10.0
_NAME = re.compile(rf"wattstream\.({'|'.join(BY_NAME)})\.v([1-9]\d{{0,5}})", re.ASCII)


def event_types(settings: Settings) -> tuple[EventType, ...]:
    """Every event type with the topic that is in use.

    :raises WattStreamError: where Kafka doesn't tell.
    """
    return at(in_use(settings))


def in_use(settings: Settings) -> int:
    """The version that is.

    :raises WattStreamError: where Kafka doesn't tell.
    """
    admin = AdminClient(settings.kafka_client() | {"log_level": 0})  # errors are raised, not printed too
    try:
        return version_in_use(admin, admin.list_topics(timeout=_TIMEOUT_SECONDS).topics)
    except KafkaException as error:
        raise WattStreamError(
            f"Kafka at {settings.bootstrap} doesn't answer ({why(settings, error)}). "
            "Is it running (wattstream status)? Is the address right (--home and --port-base, or WATTSTREAM_KAFKA)?"
        ) from error


def at(version: int) -> tuple[EventType, ...]:
    """Every event type in that version of its topic."""
    return tuple(event_type.at(version) for event_type in EVENT_TYPES)


def version_in_use(admin: AdminClient, topics: Iterable[str]) -> int:
    """The version, given the names of all topics of Kafka; 1 where there are none yet.

    :raises KafkaException: where Kafka doesn't tell the configuration of one.
    """
    by_version = versions(topics)
    for version in sorted(by_version, reverse=True):
        if version == 1:
            break  # nothing is asked where there is nothing to choose
        clocks = {config[CLOCK] for config in configurations(admin, by_version[version]).values()}
        if clocks == {ARRIVAL}:
            return version
    return 1


def versions(topics: Iterable[str]) -> dict[int, list[str]]:
    """The input topics among these by their version."""
    found: dict[int, list[str]] = {}
    for topic in topics:
        if named := _NAME.fullmatch(topic):
            found.setdefault(int(named[2]), []).append(topic)
    return found


def configurations(admin: AdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """By topic what each of its configuration's entries says.

    :raises KafkaException: where Kafka doesn't tell.
    """
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    if not resources:
        return {}
    asked = admin.describe_configs(resources, request_timeout=_TIMEOUT_SECONDS)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    answers = cast("dict[Any, Any]", asked)
    return {
        resource.name: {name: entry.value for name, entry in answer.result().items()}
        for resource, answer in answers.items()
    }
