"""All of it over TLS with passwords: a broker with SASL/SCRAM-SHA-512, ClickHouse by https.

The broker is the real one, with a second listener. ClickHouse's own TLS port can't be had, since the engine runs in
process: a small proxy that ends TLS stands before the embedded server, and is the one part that is not as in a cluster.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from typing import Any

import polars as pl
import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from dags.archive.run import archive
from dags.archive.store import Archive
from pipelines.doctor import examine
from pipelines.feed.producer import Producer
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, processes_of, sweep, wait_until
from pipelines.migrate import migrate
from pipelines.sql import stream_query
from pipelines.topics import ALL_TOPICS, create_topics
from pipelines.verify import verify
from schemas.errors import WattStreamError
from schemas.events import TOKENS
from schemas.settings import USERS, Settings, generated_passwords
from streams.log import Logs
from tests.e2e.parts import worker

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here, which makes the certificates"),
]

PASSWORD = "correct-horse-battery"  # of the Kafka user
EVENTS = 500


class Authority:
    """A certificate authority and, signed by it, the key and certificate of a server on loopback."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.file = folder / "authority.pem"
        self.server = folder / "server.pem"  # certificate, then key, as Kafka and Python both take them
        key, own, own_key = folder / "authority.key", folder / "own.pem", folder / "own.key"
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"]
        made = [*new, "-keyout", str(key), "-out", str(self.file), "-subj", "/CN=Test authority"]
        subprocess.run(made, check=True, capture_output=True)
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", str(self.file), "-CAkey", str(key)]
        made = [*new, "-keyout", str(own_key), "-out", str(own), *names, *leaf]
        subprocess.run(made, check=True, capture_output=True)
        descriptor = os.open(self.server, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(own.read_text() + own_key.read_text())


class SecuredKafka(EmbeddedKafka):
    """The embedded broker with a second listener that takes TLS and SCRAM-SHA-512 only."""

    def __init__(self, home: Path, port: int, secured_port: int, authority: Authority) -> None:
        super().__init__(home, port)
        self.secured_port = secured_port
        self._authority = authority

    def prepare(self) -> None:
        super().prepare()
        plain, secured = f"PLAINTEXT://127.0.0.1:{self.port}", f"SECURED://127.0.0.1:{self.secured_port}"
        more = {  # the last value of a property counts
            "listeners": f"{plain},CONTROLLER://127.0.0.1:{self.controller_port},{secured}",
            "advertised.listeners": f"{plain},{secured}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": self._authority.server,
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }
        with self._properties.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in more.items())

    def add_user(self, name: str, password: str) -> None:
        """By the plain listener, so that no password is in the arguments of a process."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = UserScramCredentialUpsertion(name, kind, password.encode())
        admin.alter_user_scram_credentials([wanted])[name].result(20)


@contextlib.contextmanager
def tls_before(port: int, authority: Authority) -> Iterator[int]:
    """A proxy that takes TLS at the port it gives and hands what is inside on to `port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server)

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(hand_on(reader, behind_writer), hand_on(behind_reader, writer))

    told: Queue[tuple[int, Callable[[], object]]] = Queue()

    async def serve() -> None:
        ended = asyncio.Event()
        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        loop = asyncio.get_running_loop()
        told.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(ended.set)))
        await ended.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    address, end = told.get(timeout=10)
    try:
        yield address
    finally:
        end()
        thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "other")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Settings]:
    """Topics and tables are there, made through TLS."""
    servers, home = tmp_path_factory.mktemp("servers"), tmp_path_factory.mktemp("secured")
    port = free_ports(4)
    with (
        SecuredKafka(servers, port, port + 2, authority) as kafka,
        EmbeddedClickHouse(servers, port + 3) as clickhouse,
        tls_before(clickhouse.port, authority) as https,
    ):
        kafka.add_user("wattstream", PASSWORD)
        passwords = generated_passwords(servers / "secrets.json")
        made = Settings.model_validate(
            {
                "home": home,
                "port_base": free_ports(20),
                "kafka": f"127.0.0.1:{kafka.secured_port}",
                "kafka_security_protocol": "SASL_SSL",
                "kafka_username": "wattstream",
                "kafka_password": PASSWORD,
                "kafka_ca_file": authority.file,
                "clickhouse": f"https://127.0.0.1:{https}",
                "clickhouse_ca_file": authority.file,
                "flush_seconds": 0.2,
                **{f"clickhouse_{user}_password": passwords[user] for user in USERS},
            }
        )
        assert set(create_topics(made)) == set(ALL_TOPICS)
        migrate(made)
        yield made
        sweep(home)
    sweep(servers)


def changed(settings: Settings, **given: Any) -> Settings:
    return Settings.model_validate(settings.model_dump() | given)


def requests(count: int) -> pl.DataFrame:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = pl.datetime_range(start, start.replace(hour=1), "1s", eager=True)[:count].dt.cast_time_unit("ns")
    frame = pl.DataFrame({"time": times, "id": [f"r{i}" for i in range(count)], "input_tokens": [7] * count})
    return frame.with_columns(source=pl.lit("gw"), gateway=pl.lit("gw"))


def secrets_of(settings: Settings) -> set[str]:
    return {PASSWORD, *(settings.password(user) for user in USERS)}


def test_events_come_through_whole_and_nothing_tells_a_password(settings: Settings) -> None:
    with Producer(settings, "tls") as producer:
        producer.require([TOKENS])
        producer.send(TOKENS, requests(EVENTS), "arrow", rows_per_message=50)
        producer.send(TOKENS, requests(EVENTS), "json")
    viewer = settings.clickhouse_client("viewer")
    with worker(settings) as part:
        counted = "SELECT count(), (SELECT sum(samples) FROM tokens_1m) FROM tokens"
        wait_until(lambda: viewer.query(counted).result_rows == [(EVENTS, EVENTS)], 60, "the events did not come", 0.2)
        # Written last: what it lacks when the worker ends is not done.
        ledger, sent = "SELECT sum(messages) FROM ingest_ranges", EVENTS // 50 + EVENTS
        wait_until(lambda: viewer.query(ledger).result_rows == [(sent,)], 60, "the ledger lacks some", 0.2)
        told = " ".join(" ".join(process.cmdline()) for process in processes_of(settings.home))
        assert "streams.app" in told
        told += part.log.read_text()
    assert [secret for secret in secrets_of(settings) if secret in told] == []

    report = verify(settings)
    assert (report.events, report.lost, report.twice) == (EVENTS, 0, 0)
    assert archive(settings, ["tokens"]).problems == []
    archived = Archive(settings.archive_folder)
    messages = sum(batch.num_rows for p in range(settings.partitions) for batch in archived.messages(TOKENS.topic, p))
    assert messages == sent
    assert b"".join(stream_query(settings, "SELECT count() FROM tokens", "TSV")) == f"{EVENTS}\n".encode()

    holding = [
        file
        for file in settings.home.rglob("*")
        if file.is_file() and any(secret.encode() in file.read_bytes() for secret in secrets_of(settings))
    ]
    assert holding == []


def refusals(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each way to Kafka says when it doesn't come through: a step of a start, a worker that waits, a producer."""
    monkeypatch.setattr("pipelines.topics._REACH_SECONDS", 1.0)
    monkeypatch.setattr("streams.log.TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("schemas.brokers._LISTEN_SECONDS", 60.0)  # it returns as soon as it hears why
    with pytest.raises(WattStreamError) as topics:
        create_topics(settings)
    with pytest.raises(WattStreamError) as waiting:
        Logs(settings).version()
    with Producer(settings, "refused") as producer, pytest.raises(WattStreamError) as sending:
        producer.require([TOKENS], timeout=1.0)
    return [str(topics.value), str(waiting.value), str(sending.value)]


def test_a_wrong_kafka_password_is_told_in_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in refusals(changed(settings, kafka_password="wrong-horse"), monkeypatch):
        assert "authentication failed" in words.lower() or "authentication error" in words.lower()
        assert "WATTSTREAM_KAFKA_PASSWORD" in words
        assert "\n" not in words
        assert "horse" not in words


def test_a_broker_of_another_authority_is_told_in_one_line(
    settings: Settings, other_authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in refusals(changed(settings, kafka_ca_file=other_authority.file), monkeypatch):
        assert "certificate verify failed" in words
        assert "WATTSTREAM_KAFKA_CA_FILE" in words
        assert "\n" not in words


def test_a_clickhouse_of_another_authority_or_with_another_password_is_told_in_one_line(
    settings: Settings, other_authority: Authority
) -> None:
    def words(**given: Any) -> list[str]:
        wrong = changed(settings, **given)
        with pytest.raises(WattStreamError) as library:
            wrong.clickhouse_client("viewer")
        with pytest.raises(WattStreamError) as direct:
            list(stream_query(wrong, "SELECT 1", "TSV"))
        return [str(library.value), str(direct.value)]

    for said in words(clickhouse_ca_file=other_authority.file) + words(clickhouse_ca_file=None):
        assert "WATTSTREAM_CLICKHOUSE_CA_FILE" in said
        assert "\n" not in said
    for said in words(clickhouse_viewer_password="wrong-horse"):
        assert "password is incorrect" in said
        assert "\n" not in said
        assert "horse" not in said


def test_the_doctor_finds_both_well_through_tls(settings: Settings) -> None:
    found = {finding.name: finding for finding in examine(settings)}
    assert found["kafka"].level == found["clickhouse"].level == "ok"
