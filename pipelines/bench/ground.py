# ruff: noqa: S608 (table names are ours)
"""Where variants run: a broker and a server of their own, emptied before each."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from pipelines.bench.load import TOTALS, Load
from pipelines.bench.looks import LOOK_SECONDS, Looks
from pipelines.bench.processes import started
from pipelines.bench.variants import Variant
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import ServerProcess, free_ports, tail, wait_until
from pipelines.migrate import migrate
from pipelines.topics import create_topics
from schemas.errors import UsageError, WattStreamError
from schemas.settings import Settings, load

OWN_TABLES = ("claims", "ingest_ranges", "deadletters")
SETTLE_SECONDS = 30.0
"""How long after the last raw row its sums may need to show."""


@dataclass
class Ground:
    """A broker and a server, for one load."""

    settings: Settings
    load: Load
    parts: dict[str, ServerProcess]
    client: Client

    def clear(self) -> None:
        """Empty the tables; the log stays."""
        for table in (*TOTALS[self.load.event_type.name], *OWN_TABLES):
            self.client.command(f"TRUNCATE TABLE {table}")

    def renew_log(self) -> None:
        """Empty the topic, by making it anew."""
        topic = self.load.event_type.topic
        admin = AdminClient(self.settings.kafka_client() | {"log_level": 0})
        admin.delete_topics([topic], operation_timeout=30)[topic].result()
        wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, 30, f"{topic} was not deleted")
        create_topics(self.settings)

    @contextmanager
    def running(self, variant: Variant) -> Iterator[Looks]:
        """Its processes, on empty tables, and looks at them.

        What was written before is on the disk first: who came first after the log was filled was a fifth slower for it.
        """
        self.clear()
        os.sync()
        with started(variant, self.settings) as processes:
            watched = {name: [_watched(part.process)] for name, part in self.parts.items()}
            yield Looks(self.client, variant, {"worker": [_watched(process) for process in processes], **watched})

    def look_until(self, looks: Looks, done: Callable[[], bool], seconds: float) -> None:
        """Look again and again.

        :raises WattStreamError: it has ended, or it takes too long.
        """
        deadline = time.monotonic() + seconds
        while not done():
            try:
                looks.look()
            except psutil.NoSuchProcess as error:
                raise WattStreamError(f"it ended at {looks.rows:,} events:\n{self.told(looks.variant)}") from error
            if time.monotonic() > deadline:
                raise WattStreamError(
                    f"after {seconds:g} s only {looks.rows:,} events could be queried:\n{self.told(looks.variant)}"
                )
            time.sleep(LOOK_SECONDS)

    def check(self, variant: Variant, expected: tuple[int, ...]) -> None:
        """Hold every table's sums against what was sent, which is the same for all variants.

        :raises WattStreamError: with the tables' sums, where they differ after ``SETTLE_SECONDS``.
        """
        sums = TOTALS[variant.load.event_type.name]
        tables = variant.tables or tuple(sums)
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            found = {
                table: tuple(
                    map(int, self.client.query(f"SELECT {', '.join(sums[table])} FROM {table}").result_rows[0])
                )
                for table in tables
            }
            if all(one == expected for one in found.values()):
                return
            if time.monotonic() > deadline:
                raise WattStreamError(f"its totals are {found}, not {expected}, as sent")
            time.sleep(LOOK_SECONDS)

    def told(self, variant: Variant, lines: int = 15) -> str:
        """The last lines that it printed."""
        return tail(self.settings.home / "logs" / f"{variant.name}.log", lines)

    def steps(self, variant: Variant) -> dict[str, float]:
        """CPU seconds by step, which a ceiling prints at its end; {} of the others."""
        try:
            told: Any = json.loads(self.told(variant, 1))
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}


@contextmanager
def ground(of: Load) -> Iterator[Ground]:
    """A broker and a server in a folder of their own, until the block is left."""
    with tempfile.TemporaryDirectory(prefix="wattstream-bench-") as folder:
        settings = load(home=Path(folder), port_base=free_ports(20))
        if settings.kafka or settings.clickhouse:
            raise UsageError(
                "The bench empties tables and topics, so it runs a broker and a server of its own: "
                "unset WATTSTREAM_KAFKA and WATTSTREAM_CLICKHOUSE."
            )
        broker = EmbeddedKafka(settings.home, settings.port("kafka"), settings.port("controller"))
        server = EmbeddedClickHouse(settings.home, settings.port("clickhouse"))
        with broker, server:
            create_topics(settings)
            migrate(settings)
            yield Ground(settings, of, {"broker": broker, "server": server}, settings.clickhouse_client("writer"))


def _watched(process: Any) -> psutil.Process:
    return psutil.Process(process.pid)
