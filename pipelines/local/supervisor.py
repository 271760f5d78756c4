"""Starts the parts of a stack in order, watches them, restarts what died with back-off, and stops all of it."""

import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipelines.local import state
from pipelines.local.processes import ServerProcess, require_free_port, signal_group, sweep, tail
from schemas.errors import WattStreamError

State = Literal["waiting", "starting", "running", "unresponsive", "restarting", "stopped"]

CHECK_SECONDS = 2.0
# A part that doesn't answer is shown after the first, and killed and started again after the second.
UNRESPONSIVE_SECONDS = 10.0
HOPELESS_SECONDS = 30.0
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.1, 30.0
# A part that ran this long is no crash loop: when it dies it is started again at once, not after a back-off of before.
HEALTHY_SECONDS = 10.0
# So often may a part that all others need fail at its first start, or a step, before the whole start is given up.
ESSENTIAL_ATTEMPTS = 3
STEP_DELAY_SECONDS = 3.0
# A part that fails this often before it ever ran no longer keeps those waiting that come after it.
GIVEN_UP_ATTEMPTS = 4
# Below this Kafka and ClickHouse may stop at any moment: a log segment and a merge take some hundred MB at once.
DISK_LEAST_BYTES = 1024**3
DISK_CHECK_SECONDS = 30.0
# Seconds after which what was asked to end is killed: what uses Kafka and ClickHouse, then those two. All below 10 s.
GRACE_SECONDS = (3.5, 6.0)


@dataclass
class Step:
    """Something to do once at each start, after the units and steps named in `after`."""

    name: str
    run: Callable[[], object]
    after: tuple[str, ...] = ()
    done: bool = False
    failures: int = 0
    again: float = 0.0
    running: "Future[object] | None" = None


@dataclass
class Unit:
    """One supervised process. `part` is the name it is shown under, where several processes make one part."""

    server: ServerProcess
    after: tuple[str, ...] = ()
    part: str = ""
    essential: bool = False
    state: State = "waiting"
    process: "subprocess.Popen[bytes] | None" = None
    restarts: int = 0
    failures: int = 0
    error: str | None = None
    delay: float = FIRST_DELAY_SECONDS
    away: float = 0.0
    """Seconds for which it is not started again, whatever the back-off, when it ends next: for those who break it."""
    since: float = 0.0
    answered: float = 0.0
    preparing: "Future[object] | None" = None
    checking: "Future[bool] | None" = None
    ever_ran: bool = field(default=False)

    def __post_init__(self) -> None:
        self.part = self.part or self.server.name

    @property
    def name(self) -> str:
        """The name of the process and of its log."""
        return self.server.name


class Supervisor:
    """Runs units and steps in the calling thread until told to stop.

    Children are tied to the thread that calls `run`: when it ends, however it ends, they get SIGTERM.
    """

    def __init__(
        self,
        stack: state.StackFiles,
        units: Sequence[Unit],
        steps: Sequence[Step] = (),
        external: dict[str, dict[str, Any]] | None = None,
        facts: dict[str, Any] | None = None,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.units = list(units)
        self.steps = list(steps)
        self.phase: state.Phase = "starting"
        self.error: str | None = None
        self.download: tuple[int, int] | None = None
        self._stack = stack
        self._external = external or {}
        self._facts = facts or {}
        self._say = say
        self._notices: deque[str] = deque(maxlen=20)
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._written: dict[str, Any] = {}
        self._disk_checked = 0.0
        self._disk_low = False

    def stop(self, *_: object) -> None:
        """Ask `run` to end; safe from a signal handler and from other threads."""
        self._stopping.set()

    def hurry(self) -> None:
        """Kill what is still being asked to end."""
        self._hurry.set()

    def run(self) -> None:
        """Start everything, keep it running until `stop`, then end it all.

        :raises WattStreamError: where a port is taken, another supervisor has this home, or what all need can't start.
        """
        with self._stack.lock():
            try:
                self._clear_the_ground()
                while not self._stopping.is_set():
                    now = time.monotonic()
                    self._tick(now)
                    self._look_at_disk(now)
                    self._write_state()
                    self._stopping.wait(0.1)
            except Exception as error:
                self.error = str(error) or repr(error)
                raise
            finally:
                self._end_all()

    def notice(self, message: str) -> None:
        """Tell whoever looks at the screen, and the log."""
        self._notices.append(f"{datetime.now(UTC):%H:%M:%S} {message}")
        self._stack.log(message)
        self._say(message)

    def snapshot(self) -> dict[str, Any]:
        """What state.json holds."""
        return self._facts | {
            "phase": self.phase,
            "error": self.error,
            "download": self.download,
            "parts": self._parts(),
            "notices": list(self._notices),
        }

    def _clear_the_ground(self) -> None:
        orphans = sweep(self._stack.home)
        if orphans:
            self.notice(f"Stopped what an earlier start had left: {', '.join(sorted(orphans))}")
        for unit in self.units:
            if unit.server.port:
                require_free_port(unit.server.port, unit.name)

    def _tick(self, now: float) -> None:
        for step in self.steps:
            if not step.done and self._reached(step.after):
                self._advance_step(step, now)
        for unit in self.units:
            self._advance(unit, now)
        if self.phase == "starting" and all(unit.state == "running" for unit in self.units):
            self.phase = "ready"
            self.notice("Everything is running")

    def _look_at_disk(self, now: float) -> None:
        if now < self._disk_checked + DISK_CHECK_SECONDS:
            return
        self._disk_checked = now
        free = shutil.disk_usage(self._stack.home).free
        if (low := free < DISK_LEAST_BYTES) and not self._disk_low:
            self.notice(
                f"Only {free / 1024**2:,.0f} MiB are free for {self._stack.home}: free some space, "
                "or Kafka and ClickHouse will stop. What is acknowledged stays safe."
            )
        self._disk_low = low

    def _reached(self, names: Sequence[str]) -> bool:
        done = {step.name for step in self.steps if step.done}
        done |= {unit.name for unit in self.units if unit.ever_ran or unit.failures >= GIVEN_UP_ATTEMPTS}
        known = {step.name for step in self.steps} | {unit.name for unit in self.units}
        return all(name in done or name not in known for name in names)

    def _advance_step(self, step: Step, now: float) -> None:
        if step.running is None:
            if now >= step.again:
                step.running = _background(step.run)
        elif step.running.done():
            error = step.running.exception()
            if error is None:
                step.done = True
                return
            # What it needs may have been started anew meanwhile.
            step.failures += 1
            if step.failures >= ESSENTIAL_ATTEMPTS:
                raise error
            step.running, step.again = None, now + STEP_DELAY_SECONDS
            self.notice(f"{step.name}: {error}; trying again in {STEP_DELAY_SECONDS:g} s")

    def _advance(self, unit: Unit, now: float) -> None:
        if unit.state == "waiting":
            if self._reached(unit.after):
                self._prepare(unit, now)
        elif unit.state == "restarting":
            if now >= unit.since + max(unit.delay, unit.away):
                unit.away = 0.0
                unit.delay = min(2 * unit.delay, LONGEST_DELAY_SECONDS)
                unit.restarts += 1
                self._prepare(unit, now)
        elif unit.preparing is not None:
            if unit.preparing.done():
                prepared, unit.preparing = unit.preparing, None
                self._launch(unit, prepared, now)
        elif unit.process is not None:
            self._watch(unit, unit.process, now)

    def _prepare(self, unit: Unit, now: float) -> None:
        unit.state, unit.since = "starting", now
        unit.preparing = _background(unit.server.prepare)

    def _launch(self, unit: Unit, prepared: "Future[object]", now: float) -> None:
        try:
            prepared.result()
            unit.process = unit.server.launch()
        except (WattStreamError, OSError, subprocess.SubprocessError) as error:
            self._failed(unit, now, str(error))
            return
        unit.since = unit.answered = now

    def _watch(self, unit: Unit, process: "subprocess.Popen[bytes]", now: float) -> None:
        code = process.poll()
        if code is not None:
            self._failed(unit, now, _how_it_ended(code))
            return
        self._check(unit, now)
        silent = now - unit.answered
        if unit.state == "running":
            if now - unit.since > HEALTHY_SECONDS:
                unit.delay = FIRST_DELAY_SECONDS
                self._keep_spare(unit)
            if silent > UNRESPONSIVE_SECONDS:
                unit.state = "unresponsive"
                self.notice(f"{unit.name} does not answer")
        limit = unit.server.start_seconds if unit.state == "starting" else HOPELESS_SECONDS
        if silent > limit:
            self._failed(unit, now, f"did not answer for {limit:.0f} s")

    def _keep_spare(self, unit: Unit) -> None:
        try:
            unit.server.keep_spare()
        except (OSError, subprocess.SubprocessError) as error:  # no memory, say; it would only save time
            self.notice(f"{unit.name} has no spare process: {error}")

    def _check(self, unit: Unit, now: float) -> None:
        if unit.checking is None:
            if unit.state == "starting" or now - unit.answered >= CHECK_SECONDS:
                unit.checking = _background(unit.server.answers)
        elif unit.checking.done():
            answers = unit.checking.exception() is None and unit.checking.result()
            unit.checking = None
            if answers:
                self._answered(unit, now)

    def _answered(self, unit: Unit, now: float) -> None:
        unit.answered = now
        if unit.state == "running":
            return
        if unit.state == "starting":
            unit.since = now
            if unit.ever_ran:
                self.notice(f"{unit.name} is running again")
        else:
            self.notice(f"{unit.name} answers again")
        unit.state, unit.ever_ran, unit.error = "running", True, None

    def _failed(self, unit: Unit, now: float, reason: str) -> None:
        if unit.process is not None:
            signal_group(unit.process, signal.SIGKILL)  # also what its children left behind
            unit.process.wait()
        unit.failures += 1
        unit.process, unit.checking, unit.error = None, None, reason
        if unit.essential and not unit.ever_ran and unit.failures >= ESSENTIAL_ATTEMPTS:
            raise WattStreamError(f"{unit.name} can't be started: {reason}\n{tail(unit.server.log)}")
        unit.state, unit.since = "restarting", now
        self.notice(f"{unit.name} {reason}: starting it again in {unit.delay:g} s (log: {unit.server.log})")

    def _end_all(self) -> None:
        self.phase = "stopping"
        self._write_state()
        asked = time.monotonic()
        rounds = ([unit for unit in self.units if not unit.essential], [unit for unit in self.units if unit.essential])
        for units, grace in zip(rounds, GRACE_SECONDS, strict=True):
            self._end(units, asked + grace)
        sweep(self._stack.home, grace=0.5)
        self.phase = "failed" if self.error else "stopped"
        self._write_state()

    def _end(self, units: list[Unit], deadline: float) -> None:
        for unit in units:
            unit.server.drop_spare()
        running = [(unit, unit.process) for unit in units if unit.process is not None]
        for _, process in running:
            signal_group(process, signal.SIGTERM)
        while time.monotonic() < deadline and any(process.poll() is None for _, process in running):
            if self._hurry.wait(0.02):
                break
        late = [unit.name for unit, process in running if process.poll() is None]
        if late:
            self.notice(f"Killed, since it did not end when asked: {', '.join(late)}")
        for unit, process in running:
            signal_group(process, signal.SIGKILL)  # the rest of its group too
            process.wait()
            unit.process = None
        for unit in units:
            unit.state = "stopped"
        self._write_state()

    def _parts(self) -> dict[str, dict[str, Any]]:
        parts = dict(self._external)
        for unit in self.units:
            shown = parts.get(unit.part)
            own = unit.name == unit.part
            if shown is None:
                shown = parts[unit.part] = {"state": unit.state, "host": None, "port": None, "url": None, "pid": None}
                shown |= {"restarts": 0, "error": None}
            # The state of a part of several processes is that of the one that is worst off.
            shown["state"] = max(shown["state"], unit.state, key=_SEVERITY.index)
            shown["restarts"] += unit.restarts
            shown["error"] = shown["error"] or unit.error or unit.server.trouble
            if own:
                shown["pid"] = unit.process.pid if unit.process else None
                shown["url"] = unit.server.url
                if unit.server.port:
                    shown |= {"host": "127.0.0.1", "port": unit.server.port}
        return parts

    def _write_state(self) -> None:
        snapshot = self.snapshot()
        if snapshot == self._written:
            return
        try:
            self._stack.write(snapshot)
        except OSError as error:  # a full disk must not take down what still runs
            self._say(f"{self._stack.home} can't be written: {error.strerror}")
        self._written = snapshot


_SEVERITY: list[State] = ["running", "stopped", "waiting", "starting", "unresponsive", "restarting"]


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _background(function: Callable[[], Any]) -> "Future[Any]":
    """Run in a daemon thread: neither a download nor a check that hangs may keep the stack from stopping."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
