"""A whole stack: brought up in this process or in the background, and taken down from anywhere."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.local.parts import TABLES, TOPICS, settings_environment, units_of
from pipelines.local.processes import spawn, sweep, tail
from pipelines.local.state import StackFiles, supervisor
from pipelines.local.supervisor import Step, Supervisor
from pipelines.topics import create_topics
from schemas.errors import WattStreamError
from schemas.settings import Settings, generated_passwords, load, split_url

ADDRESSES = ("port_base", "kafka", "clickhouse")

# Longer than the supervisor gives its parts to end.
_DOWN_SECONDS = 15.0


def supervisor_of(settings: Settings, say: Callable[[str], None] = lambda message: None) -> Supervisor:
    """A supervisor of all that these settings ask for; `run` it in the main thread."""
    from pipelines.migrate import migrate  # heavy, and `down` does without

    def note_download(done: int, total: int) -> None:
        made.download = (done, total) if done < total else None

    steps = [
        Step(TOPICS, lambda: create_topics(settings), after=("kafka",)),
        Step(TABLES, lambda: migrate(settings), after=("clickhouse",)),
    ]
    if settings.clickhouse is None:
        generated_passwords(settings.secrets_file)
    units = units_of(settings, note_download)
    # What other commands need to find this stack when they are given its home alone.
    facts = {name: getattr(settings, name) for name in ADDRESSES}
    made = Supervisor(StackFiles(settings.home), units, steps, _external(settings), facts, say)
    return made


def settings_of_running(home: Path | None, port_base: int | None) -> Settings:
    """Settings for a command that talks to the stack of a home: its addresses are those it was started with.

    Flags and variables win over what the stack has written down.

    :raises WattStreamError: where the home has never seen a stack, and no ClickHouse of one's own is named.
    """
    settings = load(home=home, port_base=port_base)
    known = StackFiles(settings.home).read() or {}
    if not known and settings.clickhouse is None and not settings.secrets_file.exists():
        raise WattStreamError(
            f"No stack was started in {settings.home.resolve()}: `wattstream up` starts one, --home names another."
        )
    found = {name: known[name] for name in ADDRESSES if name in known and name not in settings.model_fields_set}
    return load(**({"home": home, "port_base": port_base} | found))


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
        if time.monotonic() > deadline:
            late = [name for name, part in (snapshot or {"parts": {}})["parts"].items() if part["state"] != "running"]
            raise WattStreamError(
                f"Not running after {seconds:.0f} s: {', '.join(late)}. The rest stays up: `wattstream status` shows "
                f"why, the logs are in {files.home / 'logs'}, `wattstream down` stops it."
            )
        time.sleep(0.1)


def take_down(settings: Settings) -> list[str]:
    """Stop the stack of this home, also what a killed supervisor left; returns the names of what was stopped.

    :raises WattStreamError: where something can't be stopped.
    """
    files = StackFiles(settings.home)
    stopped: list[str] = []
    snapshot = files.read()
    running = supervisor(snapshot) if snapshot else None
    if snapshot and running and files.is_locked():
        stopped = [name for name, part in snapshot["parts"].items() if part["pid"]]
        running.terminate()
        deadline = time.monotonic() + _DOWN_SECONDS
        while files.is_locked() and time.monotonic() < deadline:
            time.sleep(0.05)
        if files.is_locked():
            running.kill()
    stopped += [name for name in sweep(files.home) if name not in stopped]
    return stopped


def main() -> None:
    """The background supervisor: its settings come from the environment, what it has to say goes to state.json."""
    try:
        run_until_signalled(supervisor_of(load()))
    except WattStreamError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
