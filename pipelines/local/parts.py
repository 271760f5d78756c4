"""What each part of a local stack is: its command, its port, and how it is asked whether it does its work."""

import json
import sys
from pathlib import Path

import httpx
from pydantic import SecretStr

from pipelines.local.processes import ServerProcess
from schemas.settings import Settings


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

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The server module of this package."""
        path = str(self.home / "clickhouse")
        port = str(self.port)
        module = [sys.executable, "-m", "pipelines.local.clickhouse"]
        return [*module, "--path", path, "--port", port, "--secrets", str(self._secrets.resolve())]

    def answers(self) -> bool:
        """GET /ping."""
        return answers_http(f"{self.url}/ping")
