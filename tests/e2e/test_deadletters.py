"""Dead letters sent again, on a real broker and engine: what newer code accepts is in the tables, once."""

import json
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer as KafkaProducer

from pipelines.deadletters.letters import Choice, DeadLetters, Letter
from pipelines.deadletters.retry import retry
from pipelines.local.processes import wait_until
from pipelines.verify import verify
from schemas.envelope import CONTENT_TYPE, CONTENT_TYPES, ENCODINGS, encode
from schemas.errors import WattStreamError
from schemas.events import TOKENS
from schemas.settings import Settings
from tests.e2e.parts import wattstream, worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

START = datetime(2026, 1, 1, tzinfo=UTC)
# The same worker before it knew of a gateway.
OLD_CODE = (
    "-c",
    "import polars as pl; from schemas.events import TOKENS; from streams.app import main\n"
    "unknown = ('gateway is not known', pl.col('gateway') == 'new')\n"
    "TOKENS.__dict__['impossible'] = (unknown, *TOKENS.impossible)\n"
    "main()",
)


@pytest.fixture(scope="module")
def settings(own_parts: Callable[..., Settings]) -> Settings:
    return own_parts("letters", flush_seconds=0.2, group_timeout_seconds=2)


def deadletters(settings: Settings, *words: str, fails: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = wattstream(settings, "deadletters", *words)
    assert done.returncode == fails, done.stderr.decode()
    return done


def send(settings: Settings, values: Sequence[bytes | None], content_type: bytes | None = None) -> None:
    """To partition 1, wherever the key would lead."""
    producer = KafkaProducer(settings.kafka_client())
    for value in values:
        headers = [(CONTENT_TYPE, content_type)] if content_type else []
        producer.produce(TOKENS.topic, value, b"gw", 1, headers=headers)
    assert producer.flush(20) == 0


def requests(source: str, count: int, new: int) -> pl.DataFrame:
    """``count`` requests, every third of the first 3 x ``new`` by the new gateway."""
    number = pl.int_range(count)
    return pl.DataFrame({"id": [f"r{i}" for i in range(count)]}).with_columns(
        time=(pl.lit(START) + pl.duration(seconds=number)).cast(pl.Datetime("ns", "UTC")),
        source=pl.lit(source),
        gateway=pl.when((number % 3 == 0) & (number < 3 * new)).then(pl.lit("new")).otherwise(pl.lit("gw")),
        output_tokens=number,
    )


def number(viewer: Client, query: str) -> int:
    return viewer.query(query).result_rows[0][0]


def wait_for(viewer: Client, query: str, expected: int) -> None:
    wait_until(lambda: number(viewer, query) == expected, 60, f"{query}: not {expected}", interval=0.2)


REJECTS = "SELECT sum(rejects) FROM ingest_ranges"
"""The ledger is written last: what it lacks, the next worker reads again, with its own code."""


def letters(settings: Settings, choice: Choice = Choice()) -> list[Letter]:  # noqa: B008 (it is frozen)
    with DeadLetters(settings) as reader:
        return reader.newest(choice, 10_000)


def test_events_that_newer_code_accepts_are_there_once_after_a_retry(settings: Settings, viewer: Client) -> None:
    dead = "SELECT count() FROM deadletters WHERE reason = 'gateway is not known'"
    with worker(settings, code=OLD_CODE):
        for encoding in ENCODINGS:
            send(settings, encode(TOKENS, requests(encoding, 900, 250), encoding), CONTENT_TYPES[encoding])
        wait_for(viewer, dead, 750)
        wait_for(viewer, REJECTS, 750)
    document = json.loads(deadletters(settings, "list", "--topic", "tokens", "--limit", "2", "--json").stdout)
    (group,) = document["groups"]
    assert (group["reason"], group["count"], group["retried"]) == ("gateway is not known", 750, 0)
    assert len(document["newest"]) == 2

    assert b"--yes" in deadletters(settings, "retry", "--all", fails=2).stderr
    looked = json.loads(deadletters(settings, "retry", "--all", "--dry-run", "--json").stdout)
    assert (looked["selected"], looked["sent"], looked["not_retryable"]) == (750, 750, [])
    assert number(viewer, "SELECT count() FROM deadletter_retries") == 0

    with worker(settings):
        done = json.loads(deadletters(settings, "retry", "--reason", "gateway is not known", "--yes", "--json").stdout)
        assert (done["sent"], done["sent_before"], done["not_retryable"]) == (750, 0, [])
        assert datetime.fromisoformat(done["since"]) >= datetime.fromisoformat(group["last"])
        wait_for(viewer, "SELECT count() FROM tokens", 2700)
        told = deadletters(settings, "retry", "--all", "--yes").stdout.decode()
        assert "0 dead letters sent again" in told
        assert "750 dead letters left out" in told
        assert b"no such dead letters" in deadletters(settings, "retry", "--reason", "none", "--yes").stdout
        deadletters(settings, "retry", "--all", "--yes", "--again")
        wait_for(viewer, "SELECT sum(messages) FROM ingest_ranges", 900 + 2 + 2 * 750)
        report = verify(settings)
    assert report.holds, report.differences
    assert number(viewer, "SELECT count() FROM deadletters") == 750
    columns = "id, source, gateway, output_tokens, toUnixTimestamp64Nano(time)"
    rows = viewer.query(f"SELECT {columns} FROM tokens ORDER BY source, output_tokens").result_rows
    sent = pl.concat(requests(encoding, 900, 250) for encoding in ENCODINGS).sort("source", "output_tokens")
    nanoseconds = pl.col("time").to_physical()
    assert rows == sent.select("id", "source", "gateway", "output_tokens", nanoseconds).rows()
    assert number(viewer, "SELECT countIf(topic_partition != 1) FROM tokens") == 0
    assert number(viewer, "SELECT sum(samples) FROM tokens_1m") == 2700


def test_what_fails_again_is_a_new_letter_with_the_same_bytes_key_and_content_type(
    settings: Settings, viewer: Client
) -> None:
    broken, kind = b'{"no \xff event', b"application/cloudevents+json; charset=utf-8"
    dead = "SELECT count() FROM deadletters WHERE reason = 'cannot be parsed'"
    rejects = number(viewer, REJECTS)
    with worker(settings):
        send(settings, [broken], kind)
        send(settings, [None])
        wait_for(viewer, dead, 2)
        chosen = Choice(TOKENS.topic, "cannot be parsed")
        empty, old = sorted(letters(settings, chosen), key=lambda one: one.content_type)
        said = deadletters(settings, "retry", str(old.position)).stdout.decode()
        assert said.startswith("1 dead letter sent again.")
        wait_for(viewer, dead, 3)
        wait_for(viewer, REJECTS, rejects + 3)
    since = said.rsplit("--since ", 1)[1].split()[0]
    (new,) = json.loads(deadletters(settings, "list", "--since", since, "--json").stdout)["newest"]
    assert new["position"] != str(old.position)
    assert new["key"] == "gw"
    assert deadletters(settings, "show", new["position"], "--raw").stdout == broken
    shown = json.loads(deadletters(settings, "show", str(old.position), "--json").stdout)
    assert shown["retried_as"] == new["position"]
    assert (shown["content_type"], new["content_type"]) == (kind.decode(), kind.decode())

    text = deadletters(settings, "show", str(old.position)).stdout.decode()
    assert "7b 22 6e 6f 20 ff" in text
    assert new["position"] in text
    said = deadletters(settings, "retry", str(empty.position), fails=1).stdout.decode()
    assert "1 dead letter can't be sent again: its payload is empty" in said
    listed = deadletters(settings, "list").stdout.decode()
    assert str(empty.position) in listed
    assert "the message is empty" in listed


def test_a_retry_that_dies_before_it_is_written_down_is_done_again(
    settings: Settings, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries = "SELECT count() FROM deadletter_retries"
    duplicates = "SELECT sum(duplicates) FROM ingest_ranges"
    before, seen, rows = (
        number(viewer, retries),
        number(viewer, duplicates),
        number(viewer, "SELECT count() FROM tokens"),
    )
    rejects = number(viewer, REJECTS)
    with worker(settings, code=OLD_CODE):
        send(settings, encode(TOKENS, requests("dies", 3, 1), "array"), CONTENT_TYPES["array"])
        wait_for(viewer, "SELECT count() FROM tokens", rows + 2)
        wait_for(viewer, "SELECT count() FROM deadletters WHERE payload LIKE '%dies%'", 1)
        wait_for(viewer, REJECTS, rejects + 1)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    (one,) = [one for one in letters(settings, Choice(reason="gateway is not known")) if one.retried is None]
    with DeadLetters(settings) as reader:
        selected = reader.at([one.position])
    with monkeypatch.context() as patched:
        patched.setattr(DeadLetters, "record", dies)
        with pytest.raises(KeyboardInterrupt):
            retry(settings, selected)
    assert number(viewer, retries) == before
    assert retry(settings, selected).sent == 1
    assert number(viewer, retries) == before + 1
    with worker(settings):
        wait_for(viewer, "SELECT count() FROM tokens WHERE source = 'dies'", 3)
        wait_for(viewer, duplicates, seen + 1)
        assert verify(settings).holds


def test_what_is_off_is_told_with_what_to_do(settings: Settings) -> None:
    for words, code, told in (
        (["show", "tokens/1/999999/0"], 1, b"deadletters list"),
        (["show", "tokens/1/0"], 2, b"no position"),
        (["show", "tokens/1/0/0", "--raw", "--json"], 2, b"exclude"),
        (["list", "--topic", "coffee"], 2, b"tokens"),
        (["list", "--since", "noon"], 2, b"7d"),
        (["retry"], 2, b"--all"),
        (["retry", "--all", "--topic", "tokens"], 2, b"Say which"),
        (["retry", "tokens/1/999999/0"], 1, b"deadletters list"),
    ):
        assert told in deadletters(settings, *words, fails=code).stderr, words


def test_a_message_over_the_limit_of_today_and_a_partition_that_is_gone_are_not_sent(settings: Settings) -> None:
    writer = settings.clickhouse_client("writer")
    writer.command(
        "INSERT INTO deadletters SELECT 'wattstream.links.v1', number * 9, 1, 0, now64(3), 'r', '', '', 'k', "
        "repeat('x', 5000) FROM numbers(2)"
    )
    writer.close()
    with DeadLetters(settings) as reader:
        selected = reader.selected(Choice("wattstream.links.v1"))
    report = retry(settings.model_copy(update={"message_max_bytes": 4000}), selected)
    assert (report.selected, report.sent, report.since) == (2, 0, None)
    assert sorted(refused.why.split()[0] for refused in report.not_retryable) == ["Kafka", "it"]
    assert [refused.first for refused in report.not_retryable if "partition 9" in refused.why] == [
        ["wattstream.links.v1/9/1/0"]
    ]


def test_a_broker_that_is_away_and_tables_of_before_are_told(settings: Settings) -> None:
    with DeadLetters(settings) as reader:
        selected = reader.selected(Choice())
    away = settings.model_copy(update={"kafka": "127.0.0.1:1"})
    with pytest.raises(WattStreamError, match="wattstream status"):
        retry(away, selected, again=True)
    writer = settings.clickhouse_client("writer")
    writer.command("RENAME TABLE deadletter_retries TO retries_aside")
    try:
        with pytest.raises(WattStreamError, match="wattstream migrate"):
            letters(settings)
    finally:
        writer.command("RENAME TABLE retries_aside TO deadletter_retries")
        writer.close()
