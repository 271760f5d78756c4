"""Imports and the simulated network all the way into the tables, on the real broker, engine and worker."""

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from pipelines.feed.network import State
from pipelines.feed.traces import ImportReport, import_trace
from pipelines.local.parts import SettingsPart
from pipelines.status import NumbersReader
from schemas.settings import Settings
from tests.e2e.parts import worker

pytestmark = pytest.mark.e2e

SIMULATOR = [sys.executable, "-m", "pipelines.feed.network"]
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def settings(stack_parts: Settings) -> Settings:
    return stack_parts


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"../shared/data/{name} isn't here")
    return path


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.2)


def rows(viewer: Client, query: str) -> list[tuple]:
    return [tuple(row) for row in viewer.query(query).result_rows]


TOKENS = (
    "SELECT count(), sum(requests), sum(input_tokens), sum(output_tokens) FROM tokens WHERE gateway = '{0}' UNION ALL "
    "SELECT sum(samples), sum(requests), sum(input_tokens), sum(output_tokens) FROM tokens_1m WHERE gateway = '{0}'"
)


@pytest.mark.data
@pytest.mark.timeout(400)
def test_real_traces_arrive_whole_and_a_second_import_changes_nothing(
    settings: Settings, viewer: Client, tmp_path: Path
) -> None:
    azure = real("llm/azure_llm_2023_code.parquet")
    mooncake = real("llm/mooncake_conversation_0_30min.parquet")
    harvard = real("power/harvard_ipmi_2025-06-03_gpu_nodes.parquet")
    biohpc = real("gpu/biohpc_gpu_hourly_05_07_08_09_until_2025-07.parquet")
    longer = tmp_path / "longer.parquet"
    pl.concat([pl.read_parquet(mooncake), pl.read_parquet(mooncake)[:10]]).write_parquet(longer)

    def import_all() -> list[ImportReport]:
        files = {"azure-llm": azure, "mooncake": mooncake, "harvard-ipmi": harvard, "biohpc": biohpc}
        return [import_trace(settings, kind, file) for kind, file in files.items()]

    def totals() -> list[list[tuple]]:
        node = (
            "SELECT node, sum(milliwatts) / sum(power_samples) / 1000 AS watts FROM power_1m WHERE site = "
            "'harvard-fasrc' AND role = 'node' AND minute >= '2025-06-03 01:00:00' AND minute < '2025-06-03 02:00:00' "
            "GROUP BY node"
        )
        return [
            rows(viewer, TOKENS.format("azure-llm")),
            rows(viewer, TOKENS.format("mooncake")),
            rows(
                viewer,
                "SELECT sum(requests), sum(input_tokens), sum(output_tokens) FROM tokens_1m "
                "WHERE gateway = 'azure-llm' AND minute >= '2023-11-16 18:30:00' AND minute < '2023-11-16 18:40:00'",
            ),
            rows(
                viewer,
                "SELECT count(), count(watts), count(temperature_celsius) FROM power WHERE site = 'harvard-fasrc' "
                "UNION ALL SELECT sum(samples), sum(power_samples), sum(temperature_samples) FROM power_1m "
                "WHERE site = 'harvard-fasrc'",
            ),
            rows(viewer, f"SELECT round(sum(watts), 1), count() FROM ({node})"),
            rows(
                viewer,
                "SELECT sum(samples), round(sum(milliwatts) / sum(power_samples) / 1000, 3) FROM utilization_1m "
                "WHERE site = 'cornell-biohpc' GROUP BY node ORDER BY node",
            ),
            rows(
                viewer,
                "SELECT site, count(), uniqExact(node) FROM emitters WHERE site IN ('harvard-fasrc', 'cornell-biohpc') "
                "GROUP BY site ORDER BY site",
            ),
        ]

    expected = [
        [(8819, 8819, 18_059_974, 245_896)] * 2,
        [(5719, 5719, 73_604_194, 1_977_204)] * 2,
        [(2130, 4_483_746, 54_699)],
        [(402_398, 268_996, 133_402)] * 2,
        [(5964.3, 329)],
        [(21_202, 69.568), (13_325, 80.121), (13_347, 145.852), (6_329, 77.98)],
        [("cornell-biohpc", 4, 4), ("harvard-fasrc", 329, 329)],
    ]
    with worker(settings):
        reports = import_all()
        assert all(report.queryable_after_seconds is not None for report in reports)
        assert totals() == expected
        import_all()
        assert totals() == expected
    with worker(settings):  # a worker that starts anew knows what was there before
        import_all()
        assert totals() == expected
        import_trace(settings, "mooncake", longer)
        assert rows(viewer, TOKENS.format("mooncake"))[0][0] == 5729


def test_an_import_paced_by_speed_keeps_its_event_times(settings: Settings, viewer: Client, tmp_path: Path) -> None:
    path = tmp_path / "paced.parquet"
    times = [datetime(2022, 5, 1, 12, 0, second) for second in range(0, 60, 10)]  # noqa: DTZ001 - as the file has it
    pl.DataFrame({"TIMESTAMP": times, "ContextTokens": [7] * 6, "GeneratedTokens": [1] * 6}).write_parquet(path)
    with worker(settings):
        report = import_trace(settings, "azure-llm", path, speed=50)
    assert 1.0 <= report.sent_after_seconds < 30
    found = rows(viewer, "SELECT time FROM tokens WHERE gateway = 'azure-llm' AND toYear(time) = 2022 ORDER BY time")
    assert [row[0].replace(tzinfo=None) for row in found] == times


@pytest.mark.timeout(300)
def test_the_network_lays_down_history_goes_on_live_and_goes_on_after_a_stop(
    settings: Settings, viewer: Client
) -> None:
    small = settings.model_copy(update={"history": 3, "rate": 300.0})

    def state() -> State | None:
        return State.read(settings.home)

    def live_since(moment: float) -> bool:
        now = state()
        return now is not None and now.phase == "live" and now.upto / 1e9 > moment

    def a_day_is_saved() -> bool:
        now = state()
        return now is not None and now.upto > now.start

    with worker(settings):
        with SettingsPart("simulator", SIMULATOR, small) as simulator:
            until(a_day_is_saved, 90, "a day of history")
            simulator.kill()
        took: list[float] = []  # to end when asked: the quicker one counts, the other may have had a busy machine
        for ending in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with SettingsPart("simulator", SIMULATOR, small) as simulator:
                until(partial(live_since, time.time() + 2), 90, "live events")
                asked = time.monotonic()
                assert simulator.process is not None
                simulator.process.send_signal(ending)
                assert simulator.process.wait(60) == (0 if ending == signal.SIGTERM else -ending)
                if ending == signal.SIGTERM:
                    took.append(time.monotonic() - asked)
        assert min(took) < 6
        last = state()
        assert last is not None
        seen = "SELECT max(time) FROM tokens WHERE startsWith(gateway, 'gateway-')"
        until(
            lambda: rows(viewer, seen)[0][0].replace(tzinfo=UTC).timestamp() > last.upto / 1e9 - 2,
            60,
            "the last live events",
        )
        with NumbersReader(settings) as reader:  # of all topics, and the ledger is written last
            until(lambda: bool(lag := reader.read().lag) and not any(lag.values()), 120, "the end of the log")
    for table in ("power", "utilization", "tokens", "links", "packages", "capacity"):
        ours = "startsWith(source, 'gateway-')" if table == "tokens" else "source = 'simulator'"
        ((count, distinct),) = rows(viewer, f"SELECT count(), uniqExact(identity) FROM {table} WHERE {ours}")
        assert count == distinct > 0
    quarters = "SELECT uniqExact(toStartOfFifteenMinutes(time)) FROM power WHERE source = 'simulator'"
    assert rows(viewer, quarters)[0][0] >= 96
    ((first, covered),) = rows(
        viewer,
        "SELECT min(since), countIf(until = '2106-02-07 00:00:00') FROM (SELECT topic, site, node, emitter, since, "
        "argMax(until, registered) AS until FROM emitters WHERE site NOT IN ('harvard-fasrc', 'cornell-biohpc') "
        "GROUP BY topic, site, node, emitter, since)",
    )
    assert first.replace(tzinfo=UTC).timestamp() == last.start / 1e9
    ((expected_twice,),) = rows(
        viewer,
        f"SELECT countIf(expected > emitters) FROM completeness(start = '{first}', stop = '{datetime.now(UTC):%F %T}') "
        "JOIN (SELECT topic, site, uniqExact(node, emitter) AS emitters FROM emitters GROUP BY topic, site) AS all "
        "USING (topic, site)",
    )
    assert expected_twice == 0
    assert covered == 509  # each emitter is expected from now on once, however often the network was started
