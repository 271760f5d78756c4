import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client

from pipelines.local.processes import free_ports

PASSWORDS = {"writer": "w-secret", "planner": "p-secret", "viewer": "v-secret", "admin": "a-secret"}


class Server:
    """An embedded ClickHouse server of its own, in a process of its own."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.path = folder / "clickhouse"
        self.port = free_ports(1)
        self.secrets = folder / "secrets.json"
        self.more = more
        descriptor = os.open(self.secrets, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(PASSWORDS, stream)
        self.process = self.launch()
        self.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-m", "pipelines.local.clickhouse", "--path", str(self.path), "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*argv, *self.more], stdout=log, stderr=log)

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                with urllib.request.urlopen(self.url + "/ping", timeout=1) as reply:
                    assert reply.read() == b"Ok.\n"
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def restart(self) -> None:
        self.process = self.launch()
        self.wait()

    def client(self, user: str = "writer", **more: Any) -> Client:
        options = {"database": "wattstream", "autogenerate_session_id": False, "compress": False} | more
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.port, username=user, password=PASSWORDS[user], **options
        )

    def http(self, user: str = "writer") -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=(user, PASSWORDS[user]), timeout=30)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clickhouse"))
    yield server
    server.stop()


@pytest.fixture
def table(clickhouse: Server) -> Iterator[str]:
    """An empty table (a Int64, s String, d DateTime), by month."""
    client = clickhouse.client()
    client.command("DROP TABLE IF EXISTS readings")
    client.command(
        "CREATE TABLE readings (a Int64, s String, d DateTime) ENGINE = MergeTree PARTITION BY toYYYYMM(d) ORDER BY a"
    )
    yield "readings"
    client.command("DROP TABLE IF EXISTS readings")
