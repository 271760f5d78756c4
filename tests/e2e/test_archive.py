"""The archive holds what the log holds, on a real broker: transactions, expiry, a topic made anew, kills, retention."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from dags.archive.assets import ASSETS, CHECKS
from dags.archive.run import archive, look, verify
from dags.archive.store import Archive
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.processes import free_ports, sweep, wait_until
from pipelines.topics import create_topics
from schemas.errors import WattStreamError
from schemas.events import LINKS, PACKAGES, POWER, RATES, TOKENS, UTILIZATION
from schemas.settings import Settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

Row = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
HOUR_MS = 3_600_000
TURN = 50
"""Messages of each kind at each turn of what is sent live."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("archive")
    made = Settings(home=home, port_base=free_ports(20))
    with EmbeddedKafka(home, made.port("kafka"), made.port("controller")):
        create_topics(made)
        yield made
    sweep(home)


@pytest.fixture(scope="module")
def admin(settings: Settings) -> AdminClient:
    return AdminClient(settings.kafka_client())


def send(settings: Settings, topic: str, count: int, partition: int = 0, value: bytes = b"{}") -> None:
    producer = Producer(settings.kafka_client(linger_ms=5))
    for i in range(count):
        producer.produce(topic, value, b"k%d" % i, partition, headers=[("content-type", b"application/json")])
    assert producer.flush(30) == 0


def in_log(settings: Settings, topic: str, partition: int = 0) -> list[Row]:
    """What a plain consumer reads."""
    consumer = Consumer(settings.kafka_client(group_id="test", enable_auto_commit=False, enable_partition_eof=True))
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    found: list[Row] = []
    while True:
        message = consumer.poll(60)
        assert message is not None
        if message.error():  # the end
            consumer.close()
            return found
        headers = message.headers() or []
        found.append((message.offset(), message.timestamp()[1], message.key(), message.value(), headers))


def in_archive(settings: Settings, topic: str, partition: int = 0) -> list[Row]:
    return [
        (row["offset"], row["timestamp"], row["key"], row["value"], [(h["name"], h["value"]) for h in row["headers"]])
        for batch in Archive(settings.archive_folder).messages(topic, partition)
        for row in batch.set_column(2, "timestamp", batch.column("timestamp").cast(pa.int64())).to_pylist()
    ]


def files(settings: Settings, topic: str, partition: int = 0) -> list[Path]:
    return [file.path for file in Archive(settings.archive_folder).chain(topic, partition).files]


def command(settings: Settings, *words: str) -> list[str]:
    home = ["--home", str(settings.home), "--port-base", str(settings.port_base)]
    return [sys.executable, "-m", "pipelines.cli", "archive", *words, *home]


def run(settings: Settings, *words: str) -> tuple[int, dict]:
    settings.password("writer")  # a home that a stack was started in
    ended = subprocess.run([*command(settings, *words), "--json"], capture_output=True, text=True, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def test_whatever_a_message_may_be_is_archived_once_with_what_aborts_left_out(settings: Settings) -> None:
    odd = [
        (None, None, []),
        (b"", b"", [("h", b"1"), ("h", None), ("", b"\xff\x00")]),
        (b"\x00\xff", bytes(range(256)), []),
    ]
    plain = Producer(settings.kafka_client())
    for key, value, headers in odd * 20:
        plain.produce(POWER.topic, value, key, 1, headers=headers)
    plain.flush()
    ended = Producer(settings.kafka_client(transactional_id="t"))
    ended.init_transactions()
    for commits in (True, False, True, False):
        ended.begin_transaction()
        for i in range(50):
            ended.produce(POWER.topic, b"%d" % i, b"t", 1)
        ended.flush()
        ended.commit_transaction() if commits else ended.abort_transaction()
    report = archive(settings, ["power"])
    assert report.problems == []
    assert report.messages == 60 + 100
    assert in_archive(settings, POWER.topic, 1) == in_log(settings, POWER.topic, 1)
    reach = report.by_partition[f"{POWER.topic}/1"]
    assert (reach.archived_from, reach.archived_to, reach.waiting) == (0, 60 + 4 * 51, 0)
    again = archive(settings, ["power"])
    assert (again.files, again.messages, again.problems) == (0, 0, [])

    # Nothing but an aborted transaction is new: that is recorded too, or its expiry would look like a loss.
    ended.begin_transaction()
    ended.produce(POWER.topic, b"never", b"t", 1)
    ended.flush()
    ended.abort_transaction()
    more = archive(settings, ["power"])
    assert (more.files, more.messages) == (1, 0)
    assert more.by_partition[f"{POWER.topic}/1"].waiting == 0

    # An open transaction is not committed: nothing of it is archived, and nothing after it.
    ended.begin_transaction()
    ended.produce(POWER.topic, b"open", b"t", 1)
    ended.flush()
    plain.produce(POWER.topic, b"behind it", b"p", 1)
    plain.flush()
    assert archive(settings, ["power"]).messages == 0
    ended.commit_transaction()
    assert archive(settings, ["power"]).messages == 2
    assert in_archive(settings, POWER.topic, 1) == in_log(settings, POWER.topic, 1)
    assert verify(settings, ["power"]).problems == []


def test_the_command_says_how_far_it_is_and_what_is_broken_is_named_and_fetched_again(settings: Settings) -> None:
    send(settings, LINKS.topic, 500)
    between = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC).timestamp() * 1000 > between.timestamp() * 1000 + 5, 1, "the clock stands")
    send(settings, LINKS.topic, 300)
    code, report = run(settings, "--topic", "links", "--until", between.isoformat())
    assert (code, report["messages"]) == (0, 500)
    assert report["by_partition"][f"{LINKS.topic}/0"]["waiting"] == 300
    assert archive(settings, [LINKS.topic]).messages == 300

    first = files(settings, LINKS.topic)[0]
    broken = bytearray(first.read_bytes())
    broken[100] ^= 1
    first.write_bytes(broken)
    code, report = run(settings, "--verify")
    assert code == 1
    (problem,) = report["problems"]
    assert str(first) in problem
    assert "Move it away" in problem
    first.rename(settings.home / "moved")
    assert archive(settings, ["links"]).messages == 500
    assert in_archive(settings, LINKS.topic) == in_log(settings, LINKS.topic)
    assert verify(settings, ["links"]).problems == []


def test_offsets_that_expired_unread_are_told_and_what_is_left_is_archived(
    settings: Settings, admin: AdminClient
) -> None:
    send(settings, RATES.topic, 10)
    assert archive(settings, ["rates"]).messages == 10
    send(settings, RATES.topic, 10)
    for future in admin.delete_records([TopicPartition(RATES.topic, 0, 15)]).values():
        future.result()
    (problem,) = look(settings, ["rates"]).problems
    assert "offsets 10 to 14 expired" in problem
    report = archive(settings, ["rates"])
    assert report.messages == 5
    assert report.problems == [problem]
    assert run(settings, "--topic", "rates")[0] == 1
    # Retention that passes what is archived loses nothing.
    for future in admin.delete_records([TopicPartition(RATES.topic, 0, 20)]).values():
        future.result()
    report = archive(settings, ["rates"])
    assert report.problems == [problem]
    assert report.by_partition[f"{RATES.topic}/0"].archived_to == 20
    assert [row[0] for row in in_archive(settings, RATES.topic)] == [*range(10), *range(15, 20)]


def limit(admin: AdminClient, topic: str, milliseconds: int) -> None:
    entry = ConfigEntry("retention.ms", str(milliseconds), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()


def test_retention_that_comes_near_is_warned_of_until_it_is_archived(settings: Settings, admin: AdminClient) -> None:
    send(settings, PACKAGES.topic, 10)
    assert look(settings, ["packages"]).warnings == []
    limit(admin, PACKAGES.topic, 7 * 24 * HOUR_MS)
    far = look(settings, ["packages"])
    assert far.warnings == []
    assert far.by_partition[f"{PACKAGES.topic}/0"].expires is not None
    limit(admin, PACKAGES.topic, HOUR_MS)
    (warning,) = look(settings, ["packages"]).warnings
    assert "offset 0 is not archived and may expire" in warning
    assert archive(settings, ["packages"]).warnings == []
    assert look(settings, ["packages"]).warnings == []
    # Files are read again while Kafka can mend them, and not for long any more.
    (file,) = files(settings, PACKAGES.topic)
    file.with_suffix(".xxh128").write_text("0" * 32)
    report = archive(settings, ["packages"])
    assert report.checked == 1
    assert str(file) in report.problems[0]


@contextmanager
def live(settings: Settings, topic: str) -> Iterator[None]:
    """Messages keep coming, in transactions too, of which every third is aborted."""
    ended = threading.Event()

    def produce() -> None:
        plain = Producer(settings.kafka_client(linger_ms=5))
        transactional = Producer(settings.kafka_client(transactional_id="live"))
        transactional.init_transactions()
        for turn in count():
            transactional.begin_transaction()
            for i in range(TURN):
                plain.produce(topic, b"plain", b"%d" % i, i % 2)
                transactional.produce(topic, b"transactional", b"%d" % turn, i % 2)
            plain.flush()
            transactional.flush()
            transactional.abort_transaction() if turn % 3 == 2 else transactional.commit_transaction()
            if ended.wait(0.01):
                return

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_killed_at_any_moment_under_live_traffic_it_goes_on_where_it_was(settings: Settings) -> None:
    topic = UTILIZATION.topic
    for partition in (0, 1):
        send(settings, topic, 40_000, partition, value=random.Random(1).randbytes(300))
    settings.password("writer")
    started = time.monotonic()
    reference = settings.model_copy(update={"archive": settings.home / "reference"})
    assert archive(reference, ["utilization"]).messages == 80_000
    lasted = time.monotonic() - started
    start_up = 3.0  # imports, on a busy machine
    rng = random.Random(2)
    folder = settings.archive_folder / topic

    def more_than_a_turn_waits() -> bool:
        """What an aborted transaction leaves waits too, and is no message."""
        partitions = look(settings, ["utilization"]).by_partition.values()
        return any(partition.waiting > TURN for partition in partitions)

    with live(settings, topic):
        for _ in range(4):
            process = subprocess.Popen(command(settings, "--topic", "utilization"), stderr=subprocess.DEVNULL)
            wait_until((folder / ".lock").exists, 30, "it did not begin", interval=0.02)
            time.sleep(rng.uniform(0, start_up + lasted))  # any moment: not a wait for anything
            process.send_signal(signal.SIGKILL)
            process.wait()
            for partition in (0, 1):
                chain = Archive(settings.archive_folder).chain(topic, partition)
                assert [file.problem() for file in chain.files] == [None] * len(chain.files)
                assert chain.gaps() == []
        for _ in range(3):
            wait_until(more_than_a_turn_waits, 60, "nothing new is sent")
            report = archive(settings, ["utilization"])
            assert report.problems == []
            assert report.messages > 0
    assert run(settings, "--topic", "utilization")[0] == 0
    for partition in (0, 1):
        assert in_archive(settings, topic, partition) == in_log(settings, topic, partition)
    assert list(settings.archive_folder.rglob("*.part")) == []


def test_dagster_archives_and_checks(settings: Settings) -> None:
    send(settings, TOKENS.topic, 100)
    key = dg.AssetKey("tokens_archive")
    asset = next(asset for asset in ASSETS if asset.key == key)
    check = next(check for check in CHECKS if check.check_key.asset_key == key)
    ran = dg.materialize([asset, check], resources={"settings": settings})
    assert ran.success
    (made,) = ran.asset_materializations_for_node("tokens_archive")
    assert made.metadata["messages"].value == 100
    (checked,) = ran.get_asset_check_evaluations()
    assert checked.passed
    assert in_archive(settings, TOKENS.topic) == in_log(settings, TOKENS.topic)


def test_a_topic_made_anew_is_told_and_nothing_is_mixed(settings: Settings, admin: AdminClient) -> None:
    send(settings, LINKS.topic, 5, 1)
    archive(settings, ["links"])
    before = in_archive(settings, LINKS.topic, 1)
    admin.delete_topics([LINKS.topic])[LINKS.topic].result()
    wait_until(lambda: LINKS.topic not in admin.list_topics(timeout=5).topics, 30, "the topic stays")
    create_topics(settings)
    send(settings, LINKS.topic, 2_000, 1)
    report = archive(settings, ["links"])
    assert report.messages == 0
    assert all("made anew" in problem for problem in report.problems)
    assert in_archive(settings, LINKS.topic, 1) == before


def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    nowhere = Settings(home=tmp_path, port_base=free_ports(20))
    with pytest.raises(WattStreamError, match="no archive in"):
        verify(nowhere)
    nowhere.password("writer")
    ended = subprocess.run(command(nowhere), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Is it running" in ended.stderr
