"""Dagster's three processes come up with our definitions, run nothing of their own accord but the schedule, and end."""

from pathlib import Path

import httpx
import pytest

from dags.instance import commands, environment, prepare
from pipelines.local.parts import settings_environment
from pipelines.local.processes import free_ports, port_is_free, processes_of, spawn, stop, sweep, wait_until
from schemas.settings import Settings


@pytest.fixture
def stack(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, port_base=free_ports(20))


def test_preparing_twice_changes_nothing(stack: Settings):
    home = prepare(stack)
    before = {file: file.stat().st_mtime_ns for file in home.iterdir()}
    assert {file.name for file in before} == {"dagster.yaml", "workspace.yaml"}
    prepare(stack)
    assert {file: file.stat().st_mtime_ns for file in home.iterdir()} == before


def test_telemetry_is_off(stack: Settings):
    import dagster as dg

    with dg.DagsterInstance.from_config(str(prepare(stack))) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled


@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_the_processes_serve_our_definitions_on_loopback_and_leave_nothing(stack: Settings):
    prepare(stack)
    env = settings_environment(stack) | environment(stack)
    page = f"http://127.0.0.1:{stack.port('dagster')}/graphql"
    query = """{ schedulesOrError(repositorySelector: {repositoryName: "__repository__",
        repositoryLocationName: "wattstream"}) { ... on Schedules { results { name scheduleState { status } } } } }"""

    def schedules() -> str:
        try:
            return httpx.post(page, json={"query": query}, timeout=60, trust_env=False).text
        except httpx.HTTPError:
            return ""

    processes = []
    try:
        for name, argv in commands(stack).items():
            processes.append(spawn(name, argv, home=stack.home, env=env))
            if name == "dagster-code":  # it opens its port once it has our definitions; the others don't ask twice
                wait_until(lambda: not port_is_free(stack.port("code")), 90, "the code server did not answer")
        running = '"name":"hourly_forecast","scheduleState":{"status":"RUNNING"}'
        wait_until(lambda: running in schedules(), 180, "Dagster's page did not show the schedule")
        foreign = {"Origin": "https://evil.example"}
        refused = httpx.post(page, json={"query": query}, headers=foreign, timeout=60, trust_env=False)
        assert refused.status_code == 403
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            stop(process)
        try:  # what was killed with them takes a moment to be gone
            wait_until(lambda: not processes_of(stack.home), 20, "they left processes")
        finally:
            sweep(stack.home)
