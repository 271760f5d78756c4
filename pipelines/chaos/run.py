"""Breaks a stack of its own at random moments under live load, then counts what was lost and what counts twice.

Kafka, ClickHouse, the workers and the simulated network are the real ones. After every round the stack must come back
to its usual freshness by itself, and `verify` holds manifests, log and tables together.
"""

import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from pipelines.chaos.anew import make_anew
from pipelines.chaos.breaking import FRESH_SECONDS, LOOK_SECONDS, Stack, break_, wait_until_fresh
from pipelines.chaos.faults import faults, planned
from pipelines.chaos.report import Report
from pipelines.chaos.small_disk import SmallDisk, small_disk
from pipelines.feed.history import SECOND
from pipelines.feed.network import State
from pipelines.local.processes import free_ports, signal_group
from pipelines.local.stack import supervisor_of
from pipelines.local.supervisor import Supervisor, Unit
from pipelines.status import NumbersReader
from pipelines.verify import verify
from pipelines.verify_log import Reading
from schemas.errors import UsageError, WattStreamError
from schemas.progress import Progress
from schemas.settings import Settings, load

# Only what the way from event to table needs: the board and Dagster would take half of a small machine.
PARTS = ("kafka", "clickhouse", "worker", "simulator")
START_SECONDS = 180.0
CATCH_UP_SECONDS = 300.0


def chaos(
    rounds: int,
    seed: int,
    *,
    only: str,
    rate: float,
    workers: int,
    partitions: int,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """Bring up a stack in a temporary home, break it `rounds` times, and judge after each; then make a topic anew.

    ``only``: faults whose name has that in it; empty for all.

    :raises WattStreamError: it does not come up, or does not come back after a fault.
    """
    moments = random.Random(seed)  # noqa: S311 - moments of faults, no secrets
    report = Report(seed)
    with ExitStack() as opened:
        disk = _own_disk(opened, report, say)
        home = disk.folder if disk else Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="wattstream-")))
        settings = load(
            home=home / "chaos",
            port_base=free_ports(20),
            rate=rate,
            workers=workers,
            partitions=partitions,
            history=0,
            clickhouse_timeout_seconds=10.0,
        )
        kinds = [fault for fault in faults(settings, own_disk=disk is not None) if only in fault.name]
        if not kinds:
            raise UsageError(f"--only {only!r}: no fault's name has that in it.")
        opened.enter_context(_kept_logs(settings.home))
        supervisor = opened.enter_context(running(settings))
        numbers = opened.enter_context(NumbersReader(settings))
        stack = Stack(settings, supervisor, numbers, disk, time.monotonic())
        readings: dict[tuple[str, int], Reading] = {}
        say(f"Up: {workers} workers, {partitions} partitions a topic, {rate:g} events a second")
        wait_until_fresh("the first events", stack)
        for fault in planned(kinds, rounds, moments):
            time.sleep(moments.uniform(1.0, 5.0))
            done = break_(fault, stack, moments)
            report.rounds.append(done)
            report.worker_peak_mb = max(report.worker_peak_mb, _worker_peak_mb(stack))
            _judge(report, stack, readings, progress)
            say(
                f"{len(report.rounds)}/{rounds}: {fault.name} ({done.part}), back in {done.recovery_seconds:.1f} s; "
                f"{report.events:,} events, {report.lost} lost, {report.twice} twice"
            )
            if not report.holds:
                return report
        report.anew = make_anew(stack, moments)
        say(f"{report.anew.topic} made anew: halted after {report.anew.halted_after_s:.1f} s, the others go on")
        report.seconds = time.monotonic() - stack.begun
    return report


def _own_disk(opened: ExitStack, report: Report, say: Callable[[str], None]) -> SmallDisk | None:
    try:
        return opened.enter_context(small_disk())
    except WattStreamError as error:
        report.left_out.append(f"disk full: {error}")
        say(f"Without a full disk: {error}")
        return None


@contextmanager
def _kept_logs(home: Path) -> Iterator[None]:
    """Of a stack that failed, whose home is about to go."""
    try:
        yield
    except WattStreamError as error:
        kept = tempfile.mkdtemp(prefix="wattstream-chaos-logs-")
        shutil.copytree(home / "logs", kept, dirs_exist_ok=True)
        raise WattStreamError(f"{error}\nThe logs of its parts are kept in {kept}.") from error


def _judge(report: Report, stack: Stack, readings: dict[tuple[str, int], Reading], progress: Progress) -> None:
    """While the network is held: beside it counting took 90 s on two cores, and the next fault met a stack behind."""
    with _held(stack.units("simulator")):
        found = verify(stack.settings, progress=progress, readings=readings)
    report.events, report.lost, report.twice = found.events, found.lost, found.twice
    report.differences = found.differences
    if report.holds:  # else that is told at once
        _wait_until_caught_up(stack)


@contextmanager
def _held(units: list[Unit]) -> Iterator[None]:
    """Stopped meanwhile; what it would have sent it sends afterwards."""
    held = [unit.process for unit in units if unit.process is not None]
    for process in held:
        signal_group(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in held:
            signal_group(process, signal.SIGCONT)


def _wait_until_caught_up(stack: Stack) -> None:
    """Until the network sends what happens now, and that can be queried: where a fault meets live load.

    :raises WattStreamError: after ``CATCH_UP_SECONDS``.
    """
    until = time.monotonic() + CATCH_UP_SECONDS
    while (state := State.read(stack.settings.home)) is None or time.time() - state.upto / SECOND > FRESH_SECONDS:
        if time.monotonic() > until:
            raise WattStreamError(f"The network did not catch up within {CATCH_UP_SECONDS:g} s: take a lower --rate.")
        time.sleep(LOOK_SECONDS)
    wait_until_fresh("the network's catching up", stack)


def _worker_peak_mb(stack: Stack) -> float:
    """Since each of them was started; 0 where the kernel doesn't keep it (Linux does)."""
    peaks = [0.0]
    for unit in stack.units("worker"):
        if unit.process is not None and psutil.LINUX:
            status = Path(f"/proc/{unit.process.pid}/status").read_text()
            peaks += [int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM")]
    return round(max(peaks))


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
            time.sleep(LOOK_SECONDS)
        yield stack
    finally:
        stack.stop()
        thread.join()
