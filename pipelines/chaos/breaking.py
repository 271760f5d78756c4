"""Does one fault to a running stack, and waits until events are fresh again."""

import random
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import cast

from clickhouse_connect.driver.exceptions import ClickHouseError

from pipelines.chaos.faults import Fault
from pipelines.chaos.report import Round
from pipelines.chaos.small_disk import SmallDisk
from pipelines.local.parts import SettingsPart
from pipelines.local.processes import signal_group
from pipelines.local.supervisor import Supervisor, Unit
from pipelines.status import NumbersReader
from schemas.errors import WattStreamError
from schemas.settings import Settings

RECOVERY_SECONDS = 120.0
# Events wait for a flush of a second, and for their turn on a busy machine.
FRESH_SECONDS = 5.0
LOOK_SECONDS = 0.25

# An insert of the workers is in the server every second; each takes tens of milliseconds.
WRITING_SECONDS = 20.0
_WRITING_LOOK_SECONDS = 0.005
DYING_SECONDS = 60.0
# Faust gives back what a worker had before: of four partitions and three workers, one that returns may get none. Then
# another one is killed, and leaves it its own.
IDLE_SECONDS = 20.0

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Stack:
    """What is broken, and how it is looked at."""

    settings: Settings
    supervisor: Supervisor
    numbers: NumbersReader
    disk: SmallDisk | None
    begun: float

    def units(self, part: str) -> list[Unit]:
        """The processes of that part: each worker is one of ``worker``."""
        return [unit for unit in self.supervisor.units if unit.part.partition("-")[0] == part]

    def fresh(self, since: float) -> bool:
        """Whether every part runs, events that came after ``since`` can be queried, and none waits for long."""
        if any(unit.state != "running" for unit in self.supervisor.units):
            return False
        freshness = self.numbers.read().freshness
        return freshness is not None and freshness < FRESH_SECONDS and self._newest() > since

    def _newest(self) -> float:
        """When the newest event that can be queried arrived, seconds since 1970."""
        newest = "SELECT toUnixTimestamp64Milli(max(arrived)) / 1e3 FROM ingest_ranges"
        try:
            with self.settings.clickhouse_client("viewer") as client:
                return client.query(newest).result_rows[0][0]
        except (WattStreamError, ClickHouseError, OSError):
            return 0.0


def break_(fault: Fault, stack: Stack, moments: random.Random) -> Round:
    """Do it to one of the processes of its part.

    :raises WattStreamError: where the stack isn't fresh again ``RECOVERY_SECONDS`` after the fault's end.
    """
    at = time.monotonic() - stack.begun
    if fault.full_seconds:
        part, gone = fault.part, None
        _fill(stack, fault.full_seconds)
    else:
        unit = moments.choice(stack.units(fault.part))
        part, gone = unit.name, _strike(fault, stack, unit)
    back = wait_until_fresh(fault.name, stack, gone)
    return Round(fault.name, part, round(at, 1), round(back, 1))


def wait_until_fresh(what: str, stack: Stack, gone: Process | None = None) -> float:
    """The seconds that it takes, ``gone`` having been started again.

    :raises WattStreamError: after ``RECOVERY_SECONDS``.
    """
    ended, since = time.monotonic(), time.time()
    # A killed one is back as another process, however long the supervisor takes to see that it is gone.
    while any(gone is not None and unit.process is gone for unit in stack.supervisor.units) or not stack.fresh(since):
        if time.monotonic() - ended > RECOVERY_SECONDS:
            snapshot = stack.supervisor.snapshot()
            states = {name: part["state"] for name, part in snapshot["parts"].items()}
            raise WattStreamError(
                f"{what}: not back after {RECOVERY_SECONDS:g} s: {states}, oldest event that waits: "
                f"{stack.numbers.read().freshness} s; {snapshot['notices'][-3:]}"
            )
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - ended


def _fill(stack: Stack, seconds: float) -> None:
    if stack.disk is None:
        raise WattStreamError("This stack has no file system of its own to fill.")
    stack.disk.fill()
    try:
        time.sleep(seconds)
    finally:
        stack.disk.free()


def _strike(fault: Fault, stack: Stack, unit: Unit) -> Process | None:
    """The process that is gone, or None where it only slept."""
    process = unit.process
    if process is None:
        raise WattStreamError(f"{unit.name} does not run")
    if fault.sleeps_seconds:
        signal_group(process, signal.SIGSTOP)
        time.sleep(fault.sleeps_seconds)
        signal_group(process, signal.SIGCONT)
        return None
    if fault.writing:
        _wait_for_insert(stack.settings)
    if fault.away_seconds:
        unit.away = fault.away_seconds
    if fault.failpoint:
        process = _die_at(fault.failpoint, stack, unit, process)
    else:
        signal_group(process, signal.SIGTERM if fault.asked else signal.SIGKILL)
        process.wait()
    time.sleep(fault.away_seconds)
    return process


def _wait_for_insert(settings: Settings) -> None:
    """Until the server is in the midst of one of a worker's."""
    client = settings.clickhouse_client("writer")
    running = "SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE '|wattstream.%'"
    until = time.monotonic() + WRITING_SECONDS
    while not client.query(running).result_rows[0][0] and time.monotonic() < until:
        time.sleep(_WRITING_LOOK_SECONDS)
    client.close()


def _die_at(step: str, stack: Stack, unit: Unit, process: Process) -> Process:
    """Kill the worker; its next process dies by itself at that step. Returns that one, which has ended."""
    variables = cast("SettingsPart", unit.server).variables
    variables["WATTSTREAM_FAILPOINT"] = f"{step}:kill"
    signal_group(process, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + DYING_SECONDS
    while (next_one := unit.process) is None or next_one is process:
        time.sleep(LOOK_SECONDS)
        if time.monotonic() > until:
            raise WattStreamError(f"{unit.name} was not started again within {DYING_SECONDS:g} s")
    del variables["WATTSTREAM_FAILPOINT"]
    began, idle = time.monotonic(), True
    while next_one.poll() is None:
        waited = time.monotonic() - began
        if idle and waited > IDLE_SECONDS:
            idle = False
            other, gives = next((o, o.process) for o in stack.units("worker") if o is not unit and o.process)
            # Away for longer than Kafka keeps for it what it had, or it would have that again.
            other.away = 1.5 * stack.settings.group_timeout_seconds
            signal_group(gives, signal.SIGKILL)
        if waited > DYING_SECONDS:
            raise WattStreamError(f"{unit.name} did not come to {step} within {DYING_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
    return next_one
