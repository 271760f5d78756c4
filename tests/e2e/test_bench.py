"""`wattstream bench` on a real broker and engine: a variant's figures, its totals held against what was sent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.bench import measure
from pipelines.bench.run import Bench
from pipelines.local.processes import processes_of, wait_until
from schemas.errors import UsageError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small flushes and short loads, for a run of a minute: long enough for some flushes on a busy machine too."""
    monkeypatch.setenv("WATTSTREAM_FLUSH_ROWS", "5000")
    monkeypatch.setattr(measure, "LOAD_SECONDS", 8.0)


def test_a_variant_is_measured_at_full_speed_and_at_parts_of_it(small: None) -> None:
    told: list[str] = []
    steps: list[tuple[str, int, int]] = []
    bench = Bench(300_000, 1, only=["wattstream-json"], say=told.append, progress=lambda *step: steps.append(step))
    bench.run()
    document = bench.report.document()
    assert document["failed"] == document["missing"] == {}
    figures = document["variants"]["wattstream-json"]
    assert figures["totals_ok"] is True
    assert figures["events_per_s"] > 1000
    assert figures["cpu_s_per_million"].keys() == {"worker", "broker", "server"}
    assert 0 < figures["freshness_p50_s"] <= figures["freshness_p99_s"] < 60
    assert figures["at_load"].keys() == {"30", "70"}
    assert all(load["events_per_s"] > 0 for load in figures["at_load"].values())
    assert ("runs", 2, 2) in steps
    assert len(told) == 3


def test_a_soak_tells_what_the_memory_gained(small: None) -> None:
    bench = Bench(300_000, 1, only=["wattstream-json"], soak_seconds=20, say=lambda _: None, progress=lambda *_: None)
    bench.run()
    found = bench.report.document()["variants"]["wattstream-json"]["soak"]
    assert bench.report.failed == {}
    assert found["seconds"] == 20
    assert found["events_per_s"] > 1000
    assert 0 < found["freshness_p50_s"] <= found["freshness_p99_s"] < 60
    assert abs(found["memory_slope"]) < 100  # of seconds, taken to 10 minutes: a number, no more


def test_rows_that_were_not_sent_are_no_figure(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The totals that it is held against are one off: the run is told, and counts nowhere."""
    right = measure.full_speed
    monkeypatch.setattr("pipelines.bench.ground.SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(
        "pipelines.bench.run.full_speed",
        lambda variant, ground, expected, progress: right(
            variant, ground, (*expected[:-1], expected[-1] + 1), progress
        ),
    )
    told: list[str] = []
    bench = Bench(30_000, 1, only=["wattstream-array"], say=told.append, progress=lambda *_: None)
    bench.run()
    assert "its totals are" in bench.report.failed["wattstream-array"]
    assert bench.report.document()["variants"]["wattstream-array"]["totals_ok"] is False
    assert told == [f"wattstream-array does not count: {bench.report.failed['wattstream-array']}"]


def test_a_bench_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    # The installed script: run as a module, CPython 3.11 ends by SIGINT where an interrupt that was caught had come in
    # an exec of text, as dataclasses have at their import.
    script = str(Path(sys.executable).with_name("wattstream"))
    words = [script, "bench", "--events", "300000", "--only", "wattstream-array"]
    running = subprocess.Popen(words, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(tmp_path.glob("wattstream-bench-*/logs/clickhouse.log")), 60, "it did not start a server")
    (home,) = tmp_path.glob("wattstream-bench-*")
    running.terminate()
    assert running.wait(60) == 1
    assert processes_of(home) == []
    assert not home.exists()


@pytest.mark.parametrize("variable", ["WATTSTREAM_KAFKA", "WATTSTREAM_CLICKHOUSE"])
def test_it_never_empties_what_is_not_its_own(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    bench = Bench(60_000, 1, only=["wattstream-json"], say=print, progress=lambda *_: None)
    with pytest.raises(UsageError, match=r"unset WATTSTREAM_KAFKA and WATTSTREAM_CLICKHOUSE"):
        bench.run()
