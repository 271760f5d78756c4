"""What each part of a local stack is: its command, its port, and how it is asked whether it does its work."""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from dags import instance as dagster
from pipelines.local.clickhouse_room import KEPT_FREE_BYTES
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.processes import ServerProcess, wait_for_room
from pipelines.local.supervisor import Unit
from schemas.settings import Settings, generated_passwords

# Steps between the parts, done once at each start.
TOPICS, TABLES = "topics", "tables"


def settings_environment(settings: Settings) -> dict[str, str]:
    """The WATTSTREAM_* variables that give a child process these settings; secrets go this way, never in argv."""
    variables: dict[str, str] = {}
    for name, value in settings:
        if value is None:
            continue
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        text = str(text.resolve()) if isinstance(text, Path) else text
        variables[f"WATTSTREAM_{name.upper()}"] = text if isinstance(text, str) else json.dumps(text)
    return variables


def answers_http(url: str) -> bool:
    """Whether an HTTP server answers there with anything but an error of its own (5xx)."""
    try:
        return httpx.get(url, timeout=3.0, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False


class EmbeddedClickHouse(ServerProcess):
    """The ClickHouse server under home/clickhouse, answering HTTP at 127.0.0.1:`port`."""

    name = "clickhouse"

    def __init__(self, home: Path, port: int, secrets: Path | None = None, admin: bool = False) -> None:
        super().__init__(home, port)
        self._admin = admin
        self._secrets = secrets or home / "secrets.json"

    @property
    def _folder(self) -> Path:
        return self.home / "clickhouse"

    def prepare(self) -> None:
        """Make the passwords of its users at the first start.

        :raises WattStreamError: where the disk stays full.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        wait_for_room(
            self._folder,
            KEPT_FREE_BYTES,
            "ClickHouse is not started on a full disk, of which its engine takes no notice",
        )
        generated_passwords(self._secrets, self._admin)

    def command(self) -> list[str]:
        """The server module of this package."""
        path, secrets = str(self._folder), str(self._secrets.resolve())
        module = [sys.executable, "-m", "pipelines.local.clickhouse"]
        more = ["--admin"] if self._admin else []
        return [*module, "--path", path, "--port", str(self.port), "--secrets", secrets, *more]

    def answers(self) -> bool:
        """GET /ping."""
        return answers_http(f"{self.url}/ping")


class SettingsPart(ServerProcess):
    """A command that takes the stack's settings from the environment; asked at `port`, where it has one."""

    start_seconds = 120.0  # imports take 1 to 10 s of CPU, and on a busy machine all parts start at once

    def __init__(
        self, name: str, argv: list[str], settings: Settings, port: int = 0, variables: dict[str, str] | None = None
    ) -> None:
        super().__init__(settings.home, port)
        self.name = name
        self._argv = argv
        self.variables = settings_environment(settings) | (variables or {})

    def command(self) -> list[str]:
        """The command as given."""
        return self._argv

    def environment(self) -> dict[str, str]:
        """The settings of the stack."""
        return self.variables

    def answers(self) -> bool:
        """Any page; without a port, being alive is all that can be asked."""
        return self.url is None or answers_http(self.url)


class Worker(SettingsPart):
    """A stream worker. Partitions that it halts, since going on would be guessing, or that stand still are its trouble.

    Neither is a reason to restart it: what a partition waits for is elsewhere, in ClickHouse, Kafka or the ledger, and
    the worker takes again by itself; a restart would stop the partitions that do move.

    Its imports take 2.7 s of CPU, a third of what passes from a kill to fresh events: a spare has them behind it.
    """

    wait_argument = "--when-told"

    def answers(self) -> bool:
        """GET /health; 503 comes with the reasons, by partition."""
        try:
            answer = httpx.get(f"{self.url}/health", timeout=3.0, trust_env=False)
            document: dict[str, dict[str, str]] = answer.json()
            reasons = document["halted"] | document["standing_still"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        self.trouble = "; ".join(f"{partition}: {reason}" for partition, reason in reasons.items()) or None
        return True


class DagsterCode(SettingsPart):
    """Dagster's code server, which imports the assets; the runs are its children."""

    def answers(self) -> bool:
        """The health check of its gRPC service; Dagster's own client prints a page for each refusal."""
        import grpc
        from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
        from grpc_health.v1.health_pb2_grpc import HealthStub

        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                stub: Any = HealthStub(channel)
                answer = stub.Check(HealthCheckRequest(service="DagsterApi"), timeout=3)
            except grpc.RpcError:
                return False
            return answer.status == HealthCheckResponse.SERVING


def units_of(settings: Settings, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Unit]:
    """The parts that `wattstream up` starts with these settings, each with what must run before it.

    What these settings point elsewhere is not started; nor is what this environment has no libraries for.
    """
    home = settings.home
    units: list[Unit] = []
    if settings.kafka is None:
        kafka = EmbeddedKafka(home, settings.port("kafka"), settings.port("controller"), progress)
        units.append(Unit(kafka, essential=True))
    if settings.clickhouse is None:
        clickhouse = EmbeddedClickHouse(home, settings.port("clickhouse"), admin=settings.clickhouse_admin)
        units.append(Unit(clickhouse, essential=True))
    for number in range(1, settings.workers + 1):
        name = "worker" if number == 1 else f"worker-{number}"
        worker = Worker(name, _module("streams.app"), settings, settings.port(name), {"WATTSTREAM_WORKER": str(number)})
        units.append(Unit(worker, after=(TOPICS, TABLES)))
    if settings.simulate:
        simulator = SettingsPart("simulator", _module("pipelines.feed.network"), settings)
        units.append(Unit(simulator, after=(TOPICS, TABLES)))
    if find_spec("starlette"):
        board = SettingsPart("board", _module("dashboards.board.app"), settings, settings.port("board"))
        units.append(Unit(board, after=(TABLES,)))
    if find_spec("dagster_webserver"):
        units.extend(_dagster_units(settings))
    return units


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _dagster_units(settings: Settings) -> list[Unit]:
    # Last, and yielding the processor: the rest is on the screen before its imports take the cores, and what is planned
    # each hour can wait for what is measured each second.
    dagster.prepare(settings)
    argv = {name: ["nice", "-n", "10", *command] for name, command in dagster.commands(settings).items()}
    variables = dagster.environment(settings)
    code = DagsterCode("dagster-code", argv["dagster-code"], settings, settings.port("code"), variables)
    page = SettingsPart("dagster", argv["dagster"], settings, settings.port("dagster"), variables)
    daemon = SettingsPart("dagster-daemon", argv["dagster-daemon"], settings, variables=variables)
    return [
        Unit(code, ("board", "worker"), "dagster"),
        Unit(page, ("dagster-code",)),
        Unit(daemon, ("dagster-code",), "dagster"),
    ]
