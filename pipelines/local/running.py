"""A stack that is running, found by its home: where it answers, and how it is stopped."""

import time
from pathlib import Path

from pipelines.local.processes import sweep
from pipelines.local.state import StackFiles, supervisor
from schemas.errors import WattStreamError
from schemas.settings import Settings, load

ADDRESSES = ("port_base", "kafka", "clickhouse")
"""The settings that a supervisor writes into state.json, so that its home is all that other commands need."""

# Longer than the supervisor gives its parts to end.
_DOWN_SECONDS = 15.0


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


def take_down(settings: Settings) -> list[str]:
    """Stop the stack of this home, also what a killed supervisor left; returns the names of what was stopped.

    :raises WattStreamError: where something can't be stopped.
    """
    files = StackFiles(settings.home)
    stopped: list[str] = []
    try:
        snapshot = files.read()
    except WattStreamError:  # damaged: its processes are found by what they are
        files.forget()
        snapshot = None
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
    if snapshot is None and files.is_locked():
        raise WattStreamError(f"A supervisor still has {files.home}: end it with Ctrl-C where it was started.")
    return stopped
