"""What each part of a local stack is: its command, its port, and how it is asked whether it does its work."""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import httpx
from pydantic import SecretStr

from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.processes import ServerProcess
from pipelines.local.supervisor import Unit
from schemas.settings import Settings

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

    def __init__(self, home: Path, port: int, secrets: Path | None = None) -> None:
        super().__init__(home, port)
        self._secrets = secrets or home / "secrets.json"

    def command(self) -> list[str]:
        """The server module of this package."""
        path, secrets = str(self.home / "clickhouse"), str(self._secrets.resolve())
        module = [sys.executable, "-m", "pipelines.local.clickhouse"]
        return [*module, "--path", path, "--port", str(self.port), "--secrets", secrets]

    def answers(self) -> bool:
        """GET /ping."""
        return answers_http(f"{self.url}/ping")


class PythonPart(ServerProcess):
    """`python -m MODULE ...` with its settings in the environment; asked at `port`, where it has one."""

    def __init__(self, name: str, module: list[str], settings: Settings, port: int = 0, **variables: str) -> None:
        super().__init__(settings.home, port)
        self.name = name
        self._module = module
        self._environment = settings_environment(settings) | variables

    def command(self) -> list[str]:
        """The module, run by this Python."""
        return [sys.executable, "-m", *self._module]

    def environment(self) -> dict[str, str]:
        """The settings of the stack."""
        return self._environment

    def answers(self) -> bool:
        """Any page; without a port, being alive is all that can be asked."""
        return self.url is None or answers_http(self.url)


class DagsterCode(PythonPart):
    """Dagster's code server: it imports dags.definitions, and the runs are its children."""

    def prepare(self) -> None:
        """Settings of the three Dagster processes: no telemetry, and this server as the only code location."""
        folder = _dagster_folder(self.home)
        folder.mkdir(parents=True, exist_ok=True)
        instance = folder / "dagster.yaml"
        if not instance.exists():  # whoever runs the stack may have tuned it
            instance.write_text("telemetry:\n  enabled: false\n")
        server = f"{{host: 127.0.0.1, port: {self.port}, location_name: wattstream}}"
        (folder / "workspace.yaml").write_text(f"load_from:\n  - grpc_server: {server}\n")

    def answers(self) -> bool:
        """The health check of its gRPC service."""
        from dagster._grpc.client import DagsterGrpcClient

        return DagsterGrpcClient(port=self.port, host="127.0.0.1").health_check_query() == "SERVING"


def _dagster_folder(home: Path) -> Path:
    return home.resolve() / "dagster"


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
        units.append(Unit(EmbeddedClickHouse(home, settings.port("clickhouse")), essential=True))
    for number in range(1, settings.workers + 1):
        name = "worker" if number == 1 else f"worker-{number}"
        worker = PythonPart(name, ["streams.app"], settings, settings.port(name), WATTSTREAM_WORKER=str(number))
        units.append(Unit(worker, after=(TOPICS, TABLES)))
    if settings.simulate:
        simulator = PythonPart("simulator", ["pipelines.feed.network"], settings)
        units.append(Unit(simulator, after=("worker",)))
    if find_spec("starlette"):
        board = PythonPart("board", ["dashboards.board.app"], settings, settings.port("board"))
        units.append(Unit(board, after=(TABLES,)))
    if find_spec("dagster_webserver"):
        units.extend(_dagster_units(settings))
    return units


def _dagster_units(settings: Settings) -> list[Unit]:
    # Started on their own and last: `dagster dev` takes two processes more, and its children outlive a SIGTERM.
    code_port, port = settings.port("code"), settings.port("dagster")
    folder = str(_dagster_folder(settings.home))
    workspace = ["-w", f"{folder}/workspace.yaml"]
    # Without the entry point option runs are started by whatever `dagster` is on PATH.
    grpc = ["dagster", "api", "grpc", "--use-python-environment-entry-point", "--module-name", "dags.definitions"]
    grpc += ["--host", "127.0.0.1", "--port", str(code_port)]
    web = ["dagster_webserver", *workspace, "--host", "127.0.0.1", "--port", str(port)]
    daemon = ["dagster._daemon", "run", *workspace]
    first = "board" if find_spec("starlette") else TABLES
    return [
        Unit(DagsterCode("dagster-code", grpc, settings, code_port, DAGSTER_HOME=folder), (first,), "dagster"),
        Unit(PythonPart("dagster", web, settings, port, DAGSTER_HOME=folder), ("dagster-code",)),
        Unit(PythonPart("dagster-daemon", daemon, settings, DAGSTER_HOME=folder), ("dagster-code",), "dagster"),
    ]
