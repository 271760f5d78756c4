"""A topic that is deleted and made anew is left alone and told, also where a rebalance came while it was away."""

from collections.abc import Callable

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from pipelines.local.parts import SettingsPart
from pipelines.local.processes import wait_until
from pipelines.topics import create_topics
from schemas.events import EVENT_TYPES, LINKS
from schemas.settings import Settings
from tests.e2e.parts import worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]


def health(part: SettingsPart) -> dict[str, dict[str, str]]:
    return httpx.get(f"{part.url}/health", timeout=60, trust_env=False).json()


def places(part: SettingsPart) -> set[str]:
    """What the worker is assigned."""
    return set(health(part)["partitions"])


def test_partitions_that_a_rebalance_gave_to_nobody_are_taken_and_halted(own_parts: Callable[..., Settings]) -> None:
    settings = own_parts("anew", workers=2, group_timeout_seconds=3)
    admin = AdminClient(settings.kafka_client())
    everything = {f"{of.topic}/{partition}" for of in EVENT_TYPES for partition in range(settings.partitions)}
    links = {place for place in everything if place.startswith(f"{LINKS.topic}/")}
    with worker(settings, 1) as first:
        with worker(settings, 2) as second:
            wait_until(
                lambda: places(first) | places(second) == everything and bool(places(second)), 60, "not assigned"
            )
            admin.delete_topics([LINKS.topic])[LINKS.topic].result()
            second.kill()
        wait_until(lambda: places(first) == everything - links, 60, "there was no rebalance without the topic")
        wait_until(lambda: create_topics(settings) == [LINKS.topic], 30, "the topic was not made anew")
        assert first.process is not None
        assert first.process.wait(60) == 0
    with worker(settings, 1) as again:
        wait_until(lambda: health(again)["halted"].keys() == links, 60, "they are not halted")
        assert all("the topic was recreated" in why for why in health(again)["halted"].values())
