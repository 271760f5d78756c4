"""Dagster's own home: its configuration, and the commands of the processes that make it up."""

import json
import sys
from pathlib import Path

from schemas.settings import Settings

ROOT = Path(__file__).resolve().parents[1]

# JSON is YAML. Runs queue one at a time: two would only take the cores from the stream. Standard output isn't kept,
# failures with their traces are in the event log.
_DAGSTER = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    "concurrency": {"runs": {"max_concurrent_runs": 1}},
    "run_monitoring": {"enabled": True, "start_timeout_seconds": 180, "poll_interval_seconds": 60},
    "retention": {
        "schedule": {"purge_after_days": {"skipped": 2, "failure": 30, "success": 7}},
        "sensor": {"purge_after_days": {"skipped": 2, "failure": 30, "success": 7}},
    },
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
}


def prepare(settings: Settings) -> Path:
    """Write dagster.yaml and workspace.yaml where they are not as they should be; returns DAGSTER_HOME."""
    home = (settings.home / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    server = {"host": "127.0.0.1", "port": settings.port("code"), "location_name": "wattstream"}
    _write(home / "dagster.yaml", _DAGSTER)
    _write(home / "workspace.yaml", {"load_from": [{"grpc_server": server}]})
    return home


def environment(settings: Settings) -> dict[str, str]:
    """Variables of all three processes, besides the WATTSTREAM_* of the settings."""
    return {"DAGSTER_HOME": str((settings.home / "dagster").resolve()), "DAGSTER_DISABLE_TELEMETRY": "1"}


def commands(settings: Settings) -> dict[str, list[str]]:
    """The processes by name, in the order in which they are started; each may be started anew by itself.

    The code server is started on its own, or else webserver and daemon would start one each.
    """
    python, port = sys.executable, str(settings.port("code"))
    workspace = str((settings.home / "dagster" / "workspace.yaml").resolve())
    code = ["api", "grpc", "-m", "dags.definitions", "-d", str(ROOT), "-h", "127.0.0.1", "-p", port]
    page = ["-h", "127.0.0.1", "-p", str(settings.port("dagster")), "-w", workspace]
    quiet = ["--code-server-log-level", "warning"]
    return {
        "dagster-code": [
            *(python, "-m", "dagster", *code),
            *("--use-python-environment-entry-point", "--location-name", "wattstream", "--log-level", "warning"),
        ],
        "dagster": [python, "-m", "dags.page", *page, "--dagster-log-level", "warning", *quiet],
        "dagster-daemon": [python, "-m", "dagster._daemon", "run", "-w", workspace, "--log-level", "warning", *quiet],
    }


def _write(file: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    if not file.exists() or file.read_text() != text:
        draft = file.with_suffix(".part")
        draft.write_text(text)
        draft.replace(file)
