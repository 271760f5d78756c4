"""The processes of a variant, with the settings of a stack; and the environments that peers need of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.bench.variants import Variant
from pipelines.local.parts import settings_environment
from pipelines.local.processes import spawn, stop
from schemas.errors import WattStreamError
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]


@contextmanager
def started(variant: Variant, settings: Settings) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Its processes, until the block is left; what they print is in home/logs/NAME.log.

    :raises WattStreamError: where the environment that it needs can't be had here.
    """
    environment = settings_environment(settings) | dict(variant.variables)
    if variant.peer:  # knows addresses alone
        environment |= {
            "WATTSTREAM_KAFKA": settings.bootstrap,
            "WATTSTREAM_CLICKHOUSE": settings.clickhouse_url,
            "WATTSTREAM_CLICKHOUSE_WRITER_PASSWORD": settings.password("writer"),
            "PYTHONPATH": str(ROOT),
        }
    python = python_of(variant)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, variant.processes + 1):
            numbered = environment | {"WATTSTREAM_WORKER": str(number)}
            running.append(spawn(variant.name, [python, *variant.arguments], home=settings.home, env=numbered))
        yield running
    finally:
        for process in running:
            stop(process, grace=10.0)


def python_of(variant: Variant) -> str:
    """The interpreter that runs it. Of a script that says what it needs (PEP 723), its environment is made at first.

    :raises WattStreamError: where that can't be had here.
    """
    if variant.script is None:
        return sys.executable
    try:
        from uv import find_uv_bin
    except ModuleNotFoundError as error:
        raise WattStreamError(f"{variant.name} needs uv: install wattstream[bench].") from error
    script = str(variant.script)
    # Not VIRTUAL_ENV's: uv would warn of it at each call.
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for words in (["sync", "--quiet", "--script", script], ["python", "find", "--script", script]):
        done = subprocess.run(
            [find_uv_bin(), "--no-python-downloads", *words],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise WattStreamError(f"{variant.name} has no environment here: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()
