"""A backup taken while a worker writes, restored into another home, satisfies `verify` there and catches up."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import backup as module
from pipelines.backup import backup, restore
from pipelines.feed.producer import Producer
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep, wait_until
from pipelines.verify import verify
from schemas.events import TOKENS
from schemas.settings import Settings
from tests.e2e.parts import worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

BATCH = 100
QUICK: dict[str, Any] = {"flush_seconds": 0.2, "group_timeout_seconds": 2}


def requests(first: int) -> pl.DataFrame:
    """Of both partitions and three months, a tenth of them duplicates."""
    numbers = [i - 8 * (i % 10 == 9) for i in range(first, first + BATCH)]
    start = datetime(2025, 9, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "time": [start + timedelta(days=i * 7 % 60) for i in numbers],
            "source": [f"gw-{i % 8}" for i in numbers],
            "id": [str(i) for i in numbers],
            "gateway": [f"gw-{i % 8}" for i in numbers],
            "input_tokens": [i % 1000 for i in numbers],
        }
    )


@contextmanager
def sending(settings: Settings, meanwhile: Any) -> Iterator[None]:
    firsts = count(0, BATCH)
    with (
        Producer(settings, "backup") as producer,
        meanwhile(lambda: producer.send(TOKENS, requests(next(firsts)), "array", rows_per_message=20), 0.1),
    ):
        yield


def ranges(client: Any) -> int:
    return client.query("SELECT count() FROM ingest_ranges").result_rows[0][0]


@pytest.fixture
def taken(
    own_parts: Callable[..., Settings], meanwhile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Backups `good`, and `reversed` in the wrong order, under live load: flushes end between the tables of each."""
    settings = own_parts("backup", **QUICK)
    freeze = module._freeze
    pauses = {"ingest_ranges", "tokens_1m"}

    def slowly(client: Any, name: str, shadow: str) -> None:
        freeze(client, name, shadow)
        if name in pauses:
            before = ranges(client)
            wait_until(lambda: ranges(client) >= before + 3, 30, "nothing is flushed")

    monkeypatch.setattr(module, "_freeze", slowly)
    client = settings.clickhouse_client("writer")
    with worker(settings), sending(settings, meanwhile):
        wait_until(lambda: ranges(client) > 5, 60, "nothing is flushed")
        backup(settings, tmp_path / "good")
        in_order = module.order
        monkeypatch.setattr(module, "order", lambda tables: in_order(tables)[::-1])
        pauses = {"tokens"}
        backup(settings, tmp_path / "reversed")
    client.close()
    return settings


def test_a_backup_under_load_restored_elsewhere_holds_and_catches_up(taken: Settings, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "pipelines.cli", "restore", str(tmp_path / "good"), "--home", str(home), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert {"ingest_ranges", "tokens", "tokens_1m"} <= set(report["tables"])
    settings = Settings(home=home, port_base=free_ports(20), kafka=taken.bootstrap, **QUICK)
    with EmbeddedClickHouse(home, settings.port("clickhouse")):
        client = settings.clickhouse_client("viewer")
        beyond = client.query(
            "SELECT countIf(offset >= end), uniqExact(if(offset >= end, offset, 0)) FROM tokens JOIN (SELECT "
            "topic_partition, max(last) + 1 AS end FROM ingest_ranges GROUP BY ALL) AS l USING topic_partition"
        ).result_rows[0]
        client.close()
        assert beyond[0] > 0, "the ledger is as new as raw: nothing is tried"
        first = verify(settings, wait=False)
        assert first.holds, first.differences
        assert first.events > 0
        assert first.pending > 0
        with worker(settings):
            last = verify(settings)
        assert last.holds, last.differences
        assert last.pending == 0
        assert last.events > first.events
    sweep(home)
    in_wrong_order_events_are_lost(taken, tmp_path)


def in_wrong_order_events_are_lost(taken: Settings, tmp_path: Path) -> None:
    """The control: what the order is for."""
    settings = Settings(home=tmp_path / "lost", port_base=free_ports(20), kafka=taken.bootstrap)
    restore(settings, tmp_path / "reversed")
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        report = verify(settings, wait=False)
    sweep(settings.home)
    assert report.lost > 0
