"""A whole stack by the command line: up, found again, hurt, taken down, and nothing left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipelines.local.processes import free_ports, processes_of, sweep
from tests.patience import quickest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
PARTS = {"kafka", "clickhouse", "worker", "board", "dagster"}


class Stack:
    """One home and its ports, spoken to as a user would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port_base = free_ports(20)

    def command(self, *arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTSTREAM_")}
        environment |= {"WATTSTREAM_HOME": str(self.home), "WATTSTREAM_PORT_BASE": str(self.port_base)} | variables
        return [sys.executable, "-m", "pipelines.cli", *arguments], environment

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        argv, environment = self.command(*arguments, **variables)
        done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=350, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "--json").stdout)

    def claims(self) -> int:
        done = self.run("sql", "SELECT count() FROM claims", "--format", "TSV")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def state(self) -> dict[str, Any]:
        return json.loads((self.home / "state.json").read_text())


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("whole") / "home")
    started = stack.run("up", "--detach", "--no-simulate")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield stack
    finally:
        sweep(stack.home)


def test_every_part_runs_and_answers_where_the_status_says(stack: Stack) -> None:
    def states() -> set[str]:
        return {part["state"] for part in stack.status()["parts"].values()}

    until(lambda: states() == {"running"}, 120, "not every part is running")  # one may be slow to answer for a moment
    parts = stack.status()["parts"]
    assert set(parts) == PARTS
    for part in parts.values():
        assert psutil.pid_exists(part["pid"])
        assert part["host"] == "127.0.0.1"
    assert all(
        httpx.get(part["url"], timeout=60, follow_redirects=True).status_code < 500
        for part in parts.values()
        if part["url"]
    )


def test_it_listens_on_loopback_only(stack: Stack) -> None:
    listening = [
        connection.laddr.ip
        for process in processes_of(stack.home)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


def test_no_password_is_in_an_argument_or_in_a_file_that_others_may_read(stack: Stack) -> None:
    passwords = json.loads((stack.home / "secrets.json").read_text()).values()
    told = " ".join(" ".join(process.cmdline()) for process in processes_of(stack.home))
    assert "streams.app" in told
    assert [password for password in passwords if password in told] == []
    holding: list[Path] = []
    for file in stack.home.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the engine's parts come and go
            if file.is_file() and any(password.encode() in file.read_bytes() for password in passwords):
                holding.append(file)
    assert holding == [stack.home / "secrets.json"]
    assert holding[0].stat().st_mode & 0o077 == 0


def test_a_second_start_in_this_home_is_refused(stack: Stack) -> None:
    again = stack.run("up", "--detach")
    assert again.returncode == 1
    assert "already running" in again.stderr


def test_a_second_stack_on_the_same_ports_names_who_has_them_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path / "other")
    other.port_base = stack.port_base
    refused = other.run("up", "--detach", "--no-simulate")
    assert refused.returncode == 1
    assert f"{stack.port_base}" in refused.stderr
    assert "taken by kafka (pid" in refused.stderr
    assert "--port-base" in refused.stderr
    assert processes_of(other.home) == []


def test_commands_find_the_ports_by_the_home_alone(stack: Stack) -> None:
    argv, environment = stack.command("sql", "SELECT 1", "--format", "TSV")
    del environment["WATTSTREAM_PORT_BASE"]
    assert subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize("part", ["worker", "clickhouse", "kafka"])
def test_a_killed_part_comes_back(stack: Stack, part: str) -> None:
    before = stack.state()["parts"][part]
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> bool:
        now = stack.state()["parts"][part]
        return now["state"] == "running" and now["pid"] not in (None, before["pid"])

    until(back, 90, f"{part} did not come back")
    assert stack.state()["parts"][part]["restarts"] == before["restarts"] + 1
    assert any(f"{part} was killed by SIGKILL" in notice for notice in stack.state()["notices"])


@pytest.mark.timeout(900)
def test_after_the_supervisor_was_killed_down_leaves_nothing_and_the_next_start_finds_its_data(stack: Stack) -> None:
    claims = stack.claims()
    assert claims > 0
    os.kill(stack.state()["pid"], signal.SIGKILL)
    done = stack.run("down")
    assert done.returncode == 0
    assert processes_of(stack.home) == []
    assert {part["state"] for part in stack.status()["parts"].values()} == {"stopped"}

    argv, environment = stack.command("up", "--no-simulate")

    def ending() -> float:
        with subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as foreground:
            try:
                assert foreground.stdout is not None
                ready = {"pid": foreground.pid, "phase": "ready"}
                until(lambda: foreground.poll() is not None or ready.items() <= stack.state().items(), 200, "not ready")
                until(lambda: stack.claims() > claims, 60, "the worker has taken nothing")
                asked = time.monotonic()
                foreground.send_signal(signal.SIGINT)
                printed = foreground.communicate(timeout=120)[0]
                took = time.monotonic() - asked
            finally:
                foreground.kill()
        assert foreground.returncode == 0
        assert "Everything is running" in printed
        assert processes_of(stack.home) == []
        return took

    assert quickest(ending, 10, tries=2) < 10
