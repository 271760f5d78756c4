"""Breaks a stack of its own at random moments under live load, then counts what was lost and what counts twice.

Kafka, ClickHouse, the workers and the simulated network are the real ones. After every round the stack must come back
to its usual freshness by itself; at the end `verify` holds manifests, log and tables together.
"""

import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pipelines.local.parts import SettingsPart
from pipelines.local.processes import free_ports, signal_group
from pipelines.local.stack import supervisor_of
from pipelines.local.supervisor import Supervisor, Unit
from pipelines.status import NumbersReader
from pipelines.verify import verify
from schemas.errors import WattStreamError
from schemas.progress import Progress
from schemas.settings import Settings, load

# Only what the way from event to table needs: the board and Dagster would take half of a small machine.
PARTS = ("kafka", "clickhouse", "worker", "simulator")
STEPS = ("after-claim", "before-raw", "before-rollups", "before-done")
"""Where a worker's fail points are, in their order (streams.failpoints)."""
START_SECONDS = 180.0
RECOVERY_SECONDS = 120.0
# Events wait for a flush of a second, and for their turn on a busy machine.
FRESH_SECONDS = 5.0
_LOOK_SECONDS = 0.25


# An insert of the workers is in the server every second; each takes tens of milliseconds.
WRITING_SECONDS = 20.0
_WRITING_LOOK_SECONDS = 0.005
DYING_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """What is done to a part: stopped for some seconds and woken, asked to end, or killed."""

    name: str
    part: str
    sleeps_seconds: float = 0.0
    asked: bool = False
    """By SIGTERM: it leaves its group, as in an upgrade."""
    away_seconds: float = 0.0
    """Killed, and started again only then."""
    failpoint: str = ""
    """Killed, and when it is back killed again by itself at this step of a flush."""
    writing: bool = False
    """Killed while an insert runs in it."""


def faults(settings: Settings) -> list[Fault]:
    """One of each kind; sleeps reach past the time-outs that these settings give."""
    group, client = settings.group_timeout_seconds, settings.clickhouse_timeout_seconds
    return [
        Fault("worker killed", "worker"),
        Fault("server killed", "clickhouse"),
        Fault("broker killed", "kafka"),
        Fault("worker asleep past its group's time-out", "worker", 1.5 * group),
        Fault("worker asleep past three time-outs", "worker", 3.5 * group),
        Fault("server asleep past its clients' time-out", "clickhouse", 1.5 * client),
        Fault("worker leaves and joins again", "worker", asked=True),
        Fault("server killed while it writes", "clickhouse", writing=True),
        Fault("server away for a minute", "clickhouse", away_seconds=60.0),
        *(Fault(f"worker killed {step.replace('-', ' ')}", "worker", failpoint=step) for step in STEPS),
    ]


@dataclass(frozen=True)
class Round:
    """One fault: when, to which process, and how long from its end until events were fresh again."""

    fault: str
    part: str
    after_seconds: float
    recovery_seconds: float


@dataclass(frozen=True)
class Recovery:
    """Of one kind of fault: how often, and the seconds from its end until events were fresh again."""

    fault: str
    times: int
    p50_s: float
    max_s: float


@dataclass
class Report:
    """What was done and what was found."""

    seed: int
    events: int = 0
    lost: int = 0
    twice: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing twice, no account that disagrees."""
        return not (self.lost or self.twice or self.differences)

    @property
    def recoveries(self) -> list[Recovery]:
        """One of each kind of fault, in the order in which they first came."""
        seconds: dict[str, list[float]] = {}
        for done in self.rounds:
            seconds.setdefault(done.fault, []).append(done.recovery_seconds)
        return [Recovery(name, len(of), statistics.median(of), max(of)) for name, of in seconds.items()]


def chaos(
    rounds: int,
    seed: int,
    *,
    rate: float,
    workers: int,
    partitions: int,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """Bring up a stack in a temporary home, break it `rounds` times, and judge.

    :raises WattStreamError: it does not come up, or does not come back after a fault.
    """
    moments = random.Random(seed)  # noqa: S311 - moments of faults, no secrets
    report = Report(seed)
    with tempfile.TemporaryDirectory(prefix="wattstream-chaos-") as folder:
        settings = load(
            home=Path(folder),
            port_base=free_ports(20),
            rate=rate,
            workers=workers,
            partitions=partitions,
            history=0,
            clickhouse_timeout_seconds=10.0,
        )
        with running(settings) as stack, NumbersReader(settings) as numbers:
            say(f"Up: {workers} workers, {partitions} partitions a topic, {rate:g} events a second")
            begin = time.monotonic()
            for fault in planned(faults(settings), rounds, moments):
                time.sleep(moments.uniform(1.0, 5.0))
                done = _break(fault, settings, stack, numbers, moments, begin)
                report.rounds.append(done)
                say(f"{len(report.rounds)}/{rounds}: {fault.name} ({done.part}), back in {done.recovery_seconds:.1f} s")
            report.seconds = time.monotonic() - begin
            found = verify(settings, progress=progress)
    report.events, report.lost, report.twice = found.events, found.lost, found.twice
    report.differences = found.differences
    return report


def planned(kinds: Sequence[Fault], rounds: int, moments: random.Random) -> Iterator[Fault]:
    """Every kind as often as every other, in random order."""
    left: list[Fault] = []
    for _ in range(rounds):
        if not left:
            left = moments.sample(list(kinds), len(kinds))
        yield left.pop()


@contextmanager
def running(settings: Settings) -> Iterator[Supervisor]:
    """A supervised stack of the parts that matter here, in a thread of its own."""
    stack = supervisor_of(settings)
    stack.units = [unit for unit in stack.units if unit.part.partition("-")[0] in PARTS]
    failure: list[BaseException] = []

    def supervise() -> None:
        try:
            stack.run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        until = time.monotonic() + START_SECONDS
        while stack.phase != "ready":
            if failure or time.monotonic() > until:
                raise WattStreamError(f"The stack did not come up: {failure[0] if failure else 'it took too long'}")
            time.sleep(_LOOK_SECONDS)
        yield stack
    finally:
        stack.stop()
        thread.join()


def _break(
    fault: Fault,
    settings: Settings,
    stack: Supervisor,
    numbers: NumbersReader,
    moments: random.Random,
    begin: float,
) -> Round:
    of_kind = [unit for unit in stack.units if unit.part.partition("-")[0] == fault.part]
    unit = moments.choice(of_kind)
    process = unit.process
    if process is None:
        raise WattStreamError(f"{unit.name} does not run")
    at = time.monotonic() - begin
    if fault.sleeps_seconds:
        signal_group(process, signal.SIGSTOP)
        time.sleep(fault.sleeps_seconds)
        signal_group(process, signal.SIGCONT)
    else:
        if fault.writing:
            _wait_for_insert(settings)
        if fault.away_seconds:
            unit.delay = fault.away_seconds
        if fault.failpoint:
            process = _die_at(fault.failpoint, unit, process)
        else:
            signal_group(process, signal.SIGTERM if fault.asked else signal.SIGKILL)
            process.wait()
        time.sleep(fault.away_seconds)
    ended = time.monotonic()
    # A killed one is back as another process, however long the supervisor takes to see that it is gone.
    while (unit.process is process and not fault.sleeps_seconds) or not _fresh(stack, numbers):
        if time.monotonic() - ended > RECOVERY_SECONDS:
            raise WattStreamError(
                f"{fault.name}: not back after {RECOVERY_SECONDS:g} s: {stack.snapshot()['notices'][-3:]}"
            )
        time.sleep(_LOOK_SECONDS)
    return Round(fault.name, unit.name, round(at, 1), round(time.monotonic() - ended, 1))


def _wait_for_insert(settings: Settings) -> None:
    """Until the server is in the midst of one of a worker's."""
    client = settings.clickhouse_client("writer")
    running = "SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE '|wattstream.%'"
    until = time.monotonic() + WRITING_SECONDS
    while not client.query(running).result_rows[0][0] and time.monotonic() < until:
        time.sleep(_WRITING_LOOK_SECONDS)
    client.close()


def _die_at(step: str, unit: Unit, process: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
    """Kill the worker; its next process dies by itself at that step. Returns that one, which has ended."""
    variables = cast("SettingsPart", unit.server).variables
    variables["WATTSTREAM_FAILPOINT"] = f"{step}:kill"
    signal_group(process, signal.SIGKILL)
    process.wait()
    until = time.monotonic() + DYING_SECONDS
    while (next_one := unit.process) is None or next_one is process:
        time.sleep(_LOOK_SECONDS)
        if time.monotonic() > until:
            raise WattStreamError(f"{unit.name} was not started again within {DYING_SECONDS:g} s")
    del variables["WATTSTREAM_FAILPOINT"]
    try:
        next_one.wait(DYING_SECONDS)
    except subprocess.TimeoutExpired:
        raise WattStreamError(f"{unit.name} did not come to {step} within {DYING_SECONDS:g} s") from None
    return next_one


def _fresh(stack: Supervisor, numbers: NumbersReader) -> bool:
    if any(unit.state != "running" for unit in stack.units):
        return False
    freshness = numbers.read().freshness
    return freshness is not None and freshness < FRESH_SECONDS
