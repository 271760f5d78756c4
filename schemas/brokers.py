"""Why Kafka is out of reach: a call of its client says that time ran out, its threads know of a refused password."""

import re
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.settings import Settings

_LISTEN_SECONDS = 2.0
_ADVICE = {
    KafkaError._AUTHENTICATION: "Check WATTSTREAM_KAFKA_USERNAME, WATTSTREAM_KAFKA_PASSWORD and the mechanism",
    KafkaError._SSL: "Give its authority's certificate in WATTSTREAM_KAFKA_CA_FILE, and the name it is for",
}


def why(settings: Settings, error: KafkaException) -> str:
    """The words of an error of Kafka's client; where Kafka refuses the user, or TLS its certificate, those and advice.

    Takes up to two seconds more where Kafka says nothing.
    """
    if error.args[0].code() not in {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}:
        return error.args[0].str()
    heard: list[KafkaError] = []
    config: dict[str, Any] = settings.kafka_client() | {"log_level": 0, "error_cb": heard.append}
    client = AdminClient(config)
    until = time.monotonic() + _LISTEN_SECONDS
    while time.monotonic() < until:
        client.poll(0.1)
        for told in heard:
            if advice := _ADVICE.get(told.code()):
                words = re.sub(r" \(after \d+ms in state \w+\)", "", " ".join(told.str().split()))
                return f"{words}. {advice}"
        if any(told.code() == KafkaError._ALL_BROKERS_DOWN for told in heard):
            break  # nobody is there to refuse anything
    return error.args[0].str()
