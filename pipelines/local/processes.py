"""Child processes that are started, watched and stopped as a group and don't outlive who started them."""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

import psutil

from pipelines.local.compiled import compiled_imports
from schemas.errors import WattStreamError

# Marks every process of a stack in its environment, so that orphans are found by what they are and not by a stale pid.
PART_VARIABLE = "WATTSTREAM_PART"
HOME_VARIABLE = "WATTSTREAM_HOME"

_PORTS = (20_000, 32_000)
_LOG_LIMIT_BYTES = 32 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
# A spare that ends by itself is not made again and again: its imports are some seconds of CPU.
SPARE_SECONDS = 60.0
# A full disk may only be so for a moment, and a start that fails ends `wattstream up`.
ROOM_SECONDS = 20.0
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    part: str,
    argv: Sequence[str],
    *,
    home: Path,
    env: Mapping[str, str] | None = None,
    tied: bool = True,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a process group of its own, its output appended to home/logs/PART.log.

    On Linux a `tied` child gets SIGTERM when the *thread* that started it ends: start children from a thread that
    lives as long as they should.
    """
    log = home / "logs" / f"{part}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if _is_full(log):
        log.replace(log.with_suffix(".log.1"))
    marks = {PART_VARIABLE: part, HOME_VARIABLE: str(home.resolve())}
    variables = {**os.environ, **compiled_imports(home), **(env or {}), **marks}
    parent = os.getpid()

    def before_exec() -> None:
        # A parent that runs in the background ignores SIGINT, which children would inherit.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if tied and _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent died between fork and prctl
                os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env=variables,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509 - it calls nothing that takes a lock
        )


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """SIGINT and SIGTERM that come meanwhile are raised after the block."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears them
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:  # not to be told on this system
        return False


def _is_full(log: Path) -> bool:
    return log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the whole group of a process started by `spawn`; a group that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def stop(process: subprocess.Popen[bytes], grace: float = 5.0) -> int:
    """Ask the group to end, kill what is left after `grace` seconds; returns the exit code."""
    signal_group(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    signal_group(process, signal.SIGKILL)
    return process.wait()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT are no obstacle
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def port_owner(port: int) -> str | None:
    """Name and pid of the process that listens on a port, where the system lets us see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
        if listens and connection.pid:
            try:
                owner = psutil.Process(connection.pid)
                return f"{owner.environ().get(PART_VARIABLE) or owner.name()} (pid {owner.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None


def require_free_port(port: int, what: str) -> None:
    """Raise WattStreamError naming who holds the port. A server left behind would answer in place of the new one."""
    if not port_is_free(port):
        owner = port_owner(port)
        raise WattStreamError(
            f"Port {port}, wanted for {what}, is taken{f' by {owner}' if owner else ''}.\n"
            "Stop it, or choose other ports with --port-base (WATTSTREAM_PORT_BASE)."
        )


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports that are free now.

    At random, below what systems give to outgoing connections: one of those could take a port before it is used.
    """
    while True:
        first = random.randrange(*_PORTS)  # noqa: S311 (no secret)
        if all(port_is_free(port) for port in range(first, first + count)):
            return first


def processes_of(home: Path) -> list[psutil.Process]:
    """Every living process, of whatever parent, that `spawn` marked as a part of the stack in `home`."""
    wanted = str(home.resolve())
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            ended = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        ours = PART_VARIABLE in environment and environment.get(HOME_VARIABLE) == wanted
        if ours and not ended and process.pid != os.getpid():
            found.append(process)
    return found


def sweep(home: Path, grace: float = 3.0) -> list[str]:
    """End what is left of the stack in `home`: ask first, then kill. Returns the names of the parts found."""
    left = processes_of(home)
    names: list[str] = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            names.append(process.environ()[PART_VARIABLE])
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=grace)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=grace)
    return names


@dataclass(frozen=True)
class _Spare:
    """A process that has imported all it needs and waits to be told to start."""

    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]


class ServerProcess:
    """One server on loopback: `prepare`, `command` and `answers` say what it is; start, stop and kill do the rest.

    Its `port` is 0 when it listens nowhere.
    """

    name: str
    start_seconds = 60.0
    wait_argument: str | None = None
    """With it the command imports what it needs, and starts when a line comes at its standard input."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home.resolve()
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._spare: _Spare | None = None
        self._next_spare = 0.0
        self.trouble: str | None = None
        """What it says keeps it from part of its work though it answers: to be shown, a new start would not help."""

    @property
    def url(self) -> str | None:
        """The HTTP address, where there is one."""
        return f"http://127.0.0.1:{self.port}" if self.port else None

    def prepare(self) -> None:
        """Whatever must be on disk before the first start; safe to repeat."""

    def command(self) -> list[str]:
        """The argument vector."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables on top of the inherited ones."""
        return {}

    def answers(self) -> bool:
        """Whether the server does its work now, asked through its port; takes a few seconds at most."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.home / "logs" / f"{self.name}.log"

    def launch(self) -> subprocess.Popen[bytes]:
        """Check that the port is free and start, without waiting for an answer; `prepare` comes before."""
        if self.port:
            require_free_port(self.port, self.name)
        with _signals_later():  # one in the midst would leave a process that nobody knows of
            self.process = self._told_spare() or spawn(
                self.name, self.command(), home=self.home, env=self.environment()
            )
        return self.process

    def keep_spare(self) -> None:
        """Have a process ready that has only to be told to start, where the command can wait for that.

        It writes to the log that is there now: while that one is full, the next start is a plain one, with a new log.
        """
        if not self.wait_argument or (self._spare is not None and self._spare.process.poll() is None):
            return
        now = time.monotonic()
        if now >= self._next_spare and not _is_full(self.log):
            self._spare, self._next_spare = None, now + SPARE_SECONDS
            argv, variables = [*self.command(), self.wait_argument], dict(self.environment())
            process = spawn(self.name, argv, home=self.home, env=variables, stdin=subprocess.PIPE)
            self._spare = _Spare(process, variables)

    def _told_spare(self) -> subprocess.Popen[bytes] | None:
        """The spare, started, if it lives and has what a new process would have."""
        spare = self._spare
        if (
            spare is not None
            and spare.process.poll() is None
            and spare.environment == self.environment()
            and not _is_full(self.log)
            and not _is_stopped(spare.process.pid)
        ):
            with contextlib.suppress(OSError):  # it has ended
                cast(IO[bytes], spare.process.stdin).write(b"\n")
                cast(IO[bytes], spare.process.stdin).close()
                self._spare, self._next_spare = None, 0.0
                return spare.process
        self.drop_spare()
        return None

    def drop_spare(self) -> None:
        """End it, if there is one."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.process.poll() is None:
            signal_group(spare.process, signal.SIGKILL)
            spare.process.wait()

    def start(self) -> Self:
        """Prepare, launch and wait until the server answers."""
        self.prepare()
        process = self.launch()
        wait_until(
            lambda: process.poll() is not None or self.answers(),
            self.start_seconds,
            f"{self.name} did not answer; see {self.log}",
        )
        if process.poll() is not None:
            raise WattStreamError(f"{self.name} ended with code {process.returncode} while starting:\n{tail(self.log)}")
        return self

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process is not None:
            stop(self.process)

    def kill(self) -> None:
        """End at once, as a crash would (SIGKILL)."""
        if self.process is not None:
            signal_group(self.process, signal.SIGKILL)
            self.process.wait()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:  # Ctrl-C, too: nobody else knows of the process yet
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_until(condition: Callable[[], bool], seconds: float, message: str, interval: float = 0.05) -> None:
    """Return once `condition` holds; raise WattStreamError with `message` when it doesn't within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise WattStreamError(f"{message} (waited {seconds:g} s)")
        time.sleep(interval)


def wait_for_room(folder: Path, free_bytes: int, why: str) -> None:
    """Return once so much is free where the folder is; raise WattStreamError when it isn't within ROOM_SECONDS."""
    wait_until(
        lambda: shutil.disk_usage(folder).free >= free_bytes,
        ROOM_SECONDS,
        f"{why}. Make room for {free_bytes >> 20} MiB in {folder}",
    )


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, for an error message."""
    if not log.exists():
        return "(no log)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
