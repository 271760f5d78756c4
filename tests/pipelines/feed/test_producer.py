import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from pipelines.feed.manifest import sendings
from pipelines.feed.producer import Producer
from pipelines.local.processes import free_ports
from schemas.errors import WattStreamError
from schemas.events import TOKENS
from schemas.settings import Settings


def tokens(ids: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"id": ids}).with_columns(
        time=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)), source=pl.lit("s"), gateway=pl.lit("g")
    )


@pytest.fixture
def unreachable(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, port_base=free_ports(20))


@pytest.mark.parametrize("encoding", ["json", "array", "arrow"])
def test_an_event_over_the_brokers_limit_is_named_with_its_size_and_nothing_is_sent(
    unreachable: Settings, encoding: str
) -> None:
    producer = Producer(unreachable, "big")
    huge = random.Random(1).randbytes(9_000_000).hex()  # compresses to the 9 MB that it is made of
    with pytest.raises(WattStreamError, match=r"bytes, over the broker's limit of 8388608"):
        producer.send(TOKENS, tokens(["small", huge]), encoding)  # pyright: ignore[reportArgumentType]
    assert list(sendings(unreachable.home)) == []
    producer.close()


def test_an_absent_broker_is_told_before_anything_is_sent(unreachable: Settings) -> None:
    producer = Producer(unreachable, "absent")
    with pytest.raises(WattStreamError, match=r"doesn't answer .*wattstream status"):
        producer.require([TOKENS], timeout=0.5)
    producer.close()
    assert list(sendings(unreachable.home)) == []


def test_what_an_absent_broker_did_not_take_stays_unknown(unreachable: Settings) -> None:
    producer = Producer(unreachable, "absent")
    with pytest.raises(WattStreamError, match="doesn't answer"):  # which topic is in use, nobody says
        producer.send(TOKENS, tokens(["0"]))
    producer._version = 1  # now it was there before
    producer.send(TOKENS, tokens(["1", "2"]))
    with pytest.raises(WattStreamError, match="has not acknowledged 1 messages yet"):
        producer.close(timeout=0.2)
    (sending,) = sendings(unreachable.home)
    assert sending.unknown == sending.intended
    assert sending.intended.events == 2
