"""What end-to-end tests start: stream workers, and the command line as a user calls it."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.local.parts import SettingsPart, settings_environment
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
WORKER = ("-m", "streams.app")


def worker(
    settings: Settings, number: int = 1, failpoint: str = "", code: tuple[str, ...] = WORKER, **variables: str
) -> SettingsPart:
    """A stream worker that is not started yet; `code` is what Python runs, where a test has a worker of its own."""
    name = "worker" if number == 1 else f"worker-{number}"
    given = {"WATTSTREAM_WORKER": str(number), "WATTSTREAM_FAILPOINT": failpoint} | variables
    return SettingsPart(name, [sys.executable, *code], settings, settings.port(name), given)


def wattstream(settings: Settings, *words: str, failpoint: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command, run to its end with these settings and no others; a traceback is never what a user is told."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTSTREAM_")}
    environment |= settings_environment(settings) | {"WATTSTREAM_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "pipelines.cli", *words]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done
