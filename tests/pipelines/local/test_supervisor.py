"""The supervisor on small processes of its own: order, restarts, and that nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from pipelines.local import supervisor as module
from pipelines.local.processes import ServerProcess, free_ports, processes_of, sweep
from pipelines.local.state import StackFiles
from pipelines.local.supervisor import ESSENTIAL_ATTEMPTS, Step, Supervisor, Unit
from schemas.errors import WattStreamError
from tests.patience import quickest

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
WAITING = """
import sys, time
if "--wait" in sys.argv:
    print("waiting", flush=True)
    sys.stdin.readline()
print("started", flush=True)
time.sleep(600)
"""
WITH_CHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); time.sleep(600)"


class Web(ServerProcess):
    def __init__(self, home: Path, name: str) -> None:
        super().__init__(home, free_ports(1))
        self.name = name

    def command(self) -> list[str]:
        return [sys.executable, "-c", SERVER, str(self.port)]

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False


class Script(ServerProcess):
    def __init__(self, home: Path, name: str, source: str) -> None:
        super().__init__(home, 0)
        self.name = name
        self._source = source

    def command(self) -> list[str]:
        return [sys.executable, "-c", self._source]

    def answers(self) -> bool:
        return True


@contextlib.contextmanager
def running(supervisor: Supervisor) -> Iterator[None]:
    # In a thread of its own: it is the thread that children are tied to.
    errors: list[BaseException] = []

    def run() -> None:
        try:
            supervisor.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not reached"
        time.sleep(0.02)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StackFiles]:
    yield StackFiles(tmp_path)
    assert sweep(tmp_path) == [], "processes were left"


def state_of(stack: StackFiles, part: str) -> str:
    snapshot = stack.read()
    return snapshot["parts"][part]["state"] if snapshot and part in snapshot["parts"] else ""


def pid_of(stack: StackFiles, part: str) -> int:
    snapshot = stack.read()
    assert snapshot is not None
    return snapshot["parts"][part]["pid"]


def test_parts_start_after_what_they_need_and_steps_in_between(stack: StackFiles) -> None:
    order: list[str] = []

    class Noting(Web):
        def prepare(self) -> None:
            order.append(self.name)

    units = [Unit(Noting(stack.home, "last"), after=("step",)), Unit(Noting(stack.home, "first"))]
    supervisor = Supervisor(stack, units, [Step("step", lambda: order.append("step"), after=("first",))])
    with running(supervisor):
        until(lambda: state_of(stack, "last") == "running")  # the file is written after the phase is set
        assert supervisor.phase == "ready"
        assert order == ["first", "step", "last"]
    assert state_of(stack, "last") == "stopped"


def test_a_step_whose_server_went_away_is_tried_again_and_one_that_never_works_ends_the_start(
    stack: StackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_DELAY_SECONDS", 0.01)
    tries: list[int] = []

    def step(works_at: int) -> None:
        tries.append(works_at)
        if len(tries) < works_at:
            raise WattStreamError("the server is away")

    with running(supervisor := Supervisor(stack, [], [Step("tables", lambda: step(2))])):
        until(lambda: supervisor.steps[0].done)
    tries.clear()
    with pytest.raises(WattStreamError, match="the server is away"):
        Supervisor(stack, [], [Step("tables", lambda: step(9))]).run()
    assert len(tries) == ESSENTIAL_ATTEMPTS


def test_a_part_that_was_killed_is_restarted_and_this_is_said(stack: StackFiles) -> None:
    said: list[str] = []
    supervisor = Supervisor(stack, [Unit(Web(stack.home, "web"))], say=said.append)
    with running(supervisor):
        until(lambda: state_of(stack, "web") == "running")
        first = pid_of(stack, "web")
        os.kill(first, signal.SIGKILL)
        until(lambda: state_of(stack, "web") == "running" and pid_of(stack, "web") != first)
        snapshot = stack.read()
        assert snapshot is not None
        assert snapshot["parts"]["web"]["restarts"] == 1
    assert any("web was killed by SIGKILL: starting it again in 0.1 s" in line for line in said)
    assert any("web is running again" in line for line in said)


def test_the_delay_between_restarts_doubles(stack: StackFiles) -> None:
    said: list[str] = []
    unit = Unit(Script(stack.home, "broken", "raise SystemExit(3)"))
    unit.server.answers = lambda: False  # type: ignore[method-assign]
    with running(Supervisor(stack, [unit], say=said.append)):
        until(lambda: len(said) >= 3)
    assert ["0.1 s" in said[0], "0.2 s" in said[1], "0.4 s" in said[2]] == [True, True, True]
    assert "ended with code 3" in said[0]


def test_a_part_that_is_to_stay_away_is_not_started_before(stack: StackFiles) -> None:
    unit = Unit(Script(stack.home, "web", "import time; time.sleep(600)"))
    unit.server.answers = lambda: True  # type: ignore[method-assign]
    with running(Supervisor(stack, [unit])):
        until(lambda: unit.state == "running")
        first = unit.process
        assert first is not None
        unit.away = 2.0
        killed = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: unit.process not in (first, None))
        assert time.monotonic() - killed >= 2.0


def test_a_part_that_does_not_answer_is_replaced_though_its_process_lives(
    stack: StackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(module, "UNRESPONSIVE_SECONDS", 0.5)
    monkeypatch.setattr(module, "HOPELESS_SECONDS", 2.0)
    said: list[str] = []
    with running(Supervisor(stack, [Unit(Web(stack.home, "web"))], say=said.append)):
        until(lambda: state_of(stack, "web") == "running")
        frozen = pid_of(stack, "web")
        os.kill(frozen, signal.SIGSTOP)
        until(lambda: any("does not answer" in line for line in said))  # its state is that for a second or two only
        until(lambda: state_of(stack, "web") == "running" and pid_of(stack, "web") != frozen)
        assert not psutil.pid_exists(frozen)


def test_a_killed_one_is_replaced_by_a_spare_that_was_only_waiting_to_be_told(
    stack: StackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTHY_SECONDS", 0.0)
    server = Script(stack.home, "ready", WAITING)
    server.wait_argument = "--wait"
    told = stack.home / "logs" / "ready.log"
    with running(Supervisor(stack, [Unit(server)])):
        until(lambda: told.exists() and sorted(told.read_text().split()) == ["started", "waiting"])
        first = pid_of(stack, "ready")
        (spare,) = (process.pid for process in processes_of(stack.home) if process.pid != first)
        os.kill(first, signal.SIGKILL)
        until(lambda: state_of(stack, "ready") == "running" and pid_of(stack, "ready") != first)
        assert pid_of(stack, "ready") == spare
        until(lambda: sorted(told.read_text().split()) == ["started", "started", "waiting", "waiting"])
    assert processes_of(stack.home) == []


@pytest.mark.parametrize("wrong", ["dead", "stopped", "other variables"])
def test_a_spare_that_is_no_use_is_replaced(stack: StackFiles, wrong: str) -> None:
    server = Script(stack.home, "ready", WAITING)
    variables: dict[str, str] = {}
    server.wait_argument, server.environment = "--wait", lambda: variables  # type: ignore[method-assign]
    server.keep_spare()
    (spare,) = processes_of(stack.home)
    if wrong == "dead":
        spare.kill()
        until(lambda: spare.status() == psutil.STATUS_ZOMBIE)
    elif wrong == "stopped":
        spare.suspend()
        until(lambda: spare.status() == psutil.STATUS_STOPPED)
    else:
        variables["A"] = "1"
    process = server.launch()
    assert process.pid != spare.pid
    assert not psutil.pid_exists(spare.pid)
    until(lambda: "started" in server.log.read_text())
    server.stop()


@pytest.mark.parametrize("wrong", ["it ends by itself", "none can be made"])
def test_without_a_spare_all_goes_on(stack: StackFiles, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setattr(module, "HEALTHY_SECONDS", 0.0)
    tries: list[None] = []
    server = Script(stack.home, "ready", WAITING.replace("sys.stdin.readline()", "raise SystemExit(1)"))
    server.wait_argument = "--wait"
    supervisor = Supervisor(stack, [Unit(server)])
    keep = server.keep_spare

    def keep_spare() -> None:
        tries.append(None)
        if wrong == "none can be made":
            raise OSError("no memory")
        keep()

    def spare_has_ended() -> bool:
        spare = server._spare
        return spare is not None and spare.process.poll() is not None and "waiting" in server.log.read_text()

    server.keep_spare = keep_spare  # type: ignore[method-assign]
    with running(supervisor):
        until(lambda: len(tries) > 5)
        if wrong == "it ends by itself":
            until(spare_has_ended)  # or it would be told to start
        first = pid_of(stack, "ready")
        os.kill(first, signal.SIGKILL)
        until(lambda: state_of(stack, "ready") == "running" and pid_of(stack, "ready") != first)
        assert server.log.read_text().count("waiting") == (1 if wrong == "it ends by itself" else 0)
    told = " ".join(supervisor.snapshot()["notices"])
    assert ("no memory" in told) == (wrong == "none can be made")


def test_one_that_ignores_being_asked_is_killed_with_its_children_in_under_ten_seconds(stack: StackFiles) -> None:
    def ending() -> float:
        units = [Unit(Script(stack.home, "stubborn", STUBBORN)), Unit(Script(stack.home, "parent", WITH_CHILD))]
        for unit in units:
            unit.server.log.unlink(missing_ok=True)
        with running(Supervisor(stack, units)):
            until(lambda: len(processes_of(stack.home)) == 3)
            until(lambda: all("deaf" in unit.server.log.read_text() for unit in units))
            started = time.monotonic()
        took = time.monotonic() - started
        assert processes_of(stack.home) == []
        return took

    assert quickest(ending, 10) < 10


def test_what_everything_needs_gives_up_with_its_log(stack: StackFiles) -> None:
    unit = Unit(Script(stack.home, "kafka", "print('no space'); raise SystemExit(1)"), essential=True)
    unit.server.answers = lambda: False  # type: ignore[method-assign]
    with pytest.raises(WattStreamError, match=r"(?s)kafka can't be started: ended with code 1.*no space"):
        Supervisor(stack, [unit]).run()
    snapshot = stack.read()
    assert snapshot is not None
    assert snapshot["phase"] == "failed"


def test_a_taken_port_is_refused_before_anything_starts(stack: StackFiles) -> None:
    with Web(stack.home / "other", "squatter") as squatter:
        web = Web(stack.home, "web")
        web.port = squatter.port
        with pytest.raises(WattStreamError, match=rf"{squatter.port}.*squatter \(pid.*(?s:.)*--port-base"):
            Supervisor(stack, [Unit(Script(stack.home, "other", STUBBORN)), Unit(web)]).run()


def test_a_disk_that_runs_full_is_said_once(stack: StackFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISK_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(module, "DISK_LEAST_BYTES", 1 << 60)
    said: list[str] = []
    ticks: list[None] = []
    supervisor = Supervisor(stack, [], say=said.append)
    monkeypatch.setattr(supervisor, "_tick", lambda now: ticks.append(None))
    with running(supervisor):
        until(lambda: len(ticks) > 3)
    assert [line for line in said if "free some space" in line] == said
    assert len(said) == 1


def test_two_supervisors_do_not_share_a_home(stack: StackFiles) -> None:
    with running(Supervisor(stack, [])):
        until(stack.is_locked)
        with pytest.raises(WattStreamError, match="already running"):
            Supervisor(stack, []).run()


def test_orphans_of_a_killed_supervisor_are_found_and_stopped(stack: StackFiles) -> None:
    source = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from pipelines.local.state import StackFiles
from pipelines.local.supervisor import Supervisor, Unit
from tests.pipelines.local.test_supervisor import Script, STUBBORN
home = Path({str(stack.home)!r})
Supervisor(StackFiles(home), [Unit(Script(home, "orphan", STUBBORN))]).run()
"""
    killed = subprocess.Popen([sys.executable, "-c", source], cwd=Path(__file__).parents[3])
    until(lambda: state_of(stack, "orphan") == "running")
    until(lambda: "deaf" in (stack.home / "logs" / "orphan.log").read_text())  # before that it would obey
    killed.kill()
    killed.wait()
    assert [process.pid for process in processes_of(stack.home)] != []  # it ignores the SIGTERM that it got
    assert state_of(stack, "orphan") == "stopped"
    said: list[str] = []
    with running(Supervisor(stack, [], say=said.append)):
        until(lambda: said)
    assert "orphan" in said[0]
