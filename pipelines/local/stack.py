"""A whole stack brought up, in this process or in the background."""

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from pipelines.local.parts import TABLES, TOPICS, settings_environment, units_of
from pipelines.local.processes import spawn, tail
from pipelines.local.running import ADDRESSES
from pipelines.local.state import StackFiles
from pipelines.local.supervisor import GIVEN_UP_ATTEMPTS, Step, Supervisor
from pipelines.topics import create_topics
from schemas.errors import WattStreamError
from schemas.settings import Settings, load, split_url

_NOTHING: dict[str, Any] = {"parts": {}}
_PENDING = ("waiting", "starting", "unresponsive", "restarting")


def supervisor_of(settings: Settings, say: Callable[[str], None] = lambda message: None) -> Supervisor:
    """A supervisor of all that these settings ask for; `run` it in the main thread."""
    from pipelines.migrate import migrate

    def note_download(done: int, total: int) -> None:
        made.download = (done, total) if done < total else None

    steps = [
        Step(TOPICS, lambda: create_topics(settings), after=("kafka",)),
        Step(TABLES, lambda: migrate(settings), after=("clickhouse",)),
    ]
    units = units_of(settings, note_download)
    # What other commands need to find this stack when they are given its home alone.
    facts = {name: getattr(settings, name) for name in ADDRESSES}
    made = Supervisor(StackFiles(settings.home), units, steps, _external(settings), facts, say)
    return made


def _external(settings: Settings) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    if settings.kafka is not None:
        host, _, port = settings.kafka.split(",")[0].rpartition(":")
        parts["kafka"] = {"host": host, "port": int(port) if port.isdigit() else None, "url": None}
    if settings.clickhouse is not None:
        host, port, _ = split_url(settings.clickhouse)
        parts["clickhouse"] = {"host": host, "port": port, "url": settings.clickhouse_url}
    return {
        name: {"state": "external", **where, "pid": None, "restarts": 0, "error": None} for name, where in parts.items()
    }


def run_until_signalled(stack: Supervisor) -> None:
    """Run in the main thread until SIGINT or SIGTERM (or the terminal closes); a second one kills what still runs."""
    asked = 0

    def ask(*_: object) -> None:
        nonlocal asked
        asked += 1
        stack.stop() if asked == 1 else stack.hurry()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        stack.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_in_background(
    settings: Settings, watch: Callable[[dict[str, Any]], None] = lambda snapshot: None, seconds: float = 300
) -> dict[str, Any]:
    """Start a supervisor that outlives this process; returns its state once everything is running.

    `watch` sees the state while it starts; the time a download takes does not count.

    :raises WattStreamError: where the start failed, or not everything runs after `seconds`; then the rest stays up.
    """
    files = StackFiles(settings.home)
    with files.lock():  # says who has it, before anything is started
        files.forget()
    argv = [sys.executable, "-m", "pipelines.local.stack"]
    process = spawn("supervisor", argv, home=files.home, env=settings_environment(settings), tied=False)
    deadline = time.monotonic() + seconds
    while True:
        snapshot = files.read()
        if snapshot and snapshot["pid"] == process.pid:
            watch(snapshot)
            if snapshot["phase"] == "ready":
                return snapshot
            if snapshot["download"]:
                deadline = time.monotonic() + seconds
        if process.poll() is not None:
            error = snapshot["error"] if snapshot else None
            raise WattStreamError(error or f"The supervisor ended while starting:\n{tail(files.supervisor_log)}")
        late = {name: part for name, part in (snapshot or _NOTHING)["parts"].items() if part["state"] in _PENDING}
        hopeless = {name: part for name, part in late.items() if part["restarts"] >= GIVEN_UP_ATTEMPTS}
        if hopeless or time.monotonic() > deadline:
            told = "; ".join(f"{name} ({part['error'] or part['state']})" for name, part in (hopeless or late).items())
            raise WattStreamError(
                f"Not everything runs: {told}. What does stays up: `wattstream status` shows it, "
                f"the logs are in {files.home / 'logs'}, `wattstream down` stops it."
            )
        time.sleep(0.1)


def main() -> None:
    """The background supervisor: its settings come from the environment, what it has to say goes to state.json."""
    try:
        run_until_signalled(supervisor_of(load()))
    except WattStreamError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
