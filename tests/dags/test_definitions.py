"""The asset graph, as a snapshot: a change of lineage shows up in review; and the whole job on a real engine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from clickhouse_connect.driver.client import Client

from dags.archive.run import TOPICS
from dags.clickhouse import Warehouse
from dags.definitions import FORECAST_JOB, defs
from dags.runs import run_forecast
from schemas.settings import Settings
from tests.dags.synthetic_network import SITES, lay_down_network

GRAPH = """
alerts_archive <- nothing ? ahead_of_retention
capacity <- nothing
capacity_archive <- nothing ? ahead_of_retention
capacity_outlook <- capacity demand_1h fleet forecast_scores forecasts sites
completeness_1h <- emitters links_1h power_1h utilization_1h
customer_usage_1d <- usage_1h ? sums_equal_source
deadletters_archive <- nothing ? ahead_of_retention
demand_1h <- emitters power_1h tokens_1h utilization_1h ? fresh
emitters <- nothing
energy_1h <- emitters power_1h
fleet <- nothing
forecast_report <- capacity_outlook demand_1h forecast_scores forecasts
forecast_scores <- demand_1h ? coverage_plausible
forecasts <- demand_1h ? quantiles_ordered
links_1h <- links_1m ? sums_equal_source
links_1m <- nothing
links_archive <- nothing ? ahead_of_retention
package_usage_1d <- usage_1h ? sums_equal_source
packages_archive <- nothing ? ahead_of_retention
power_1h <- power_1m ? sums_equal_source
power_1m <- nothing
power_archive <- nothing ? ahead_of_retention
published_dashboards <- nothing
rates_archive <- nothing ? ahead_of_retention
region_tokens_1d <- region_tokens_1h ? sums_equal_source
region_tokens_1h <- tokens_1h ? sums_equal_source
site_energy_1h <- emitters power_1h
site_tokens_1h <- tokens_1h ? sums_equal_source
sites <- nothing
tokens_1h <- tokens_1m ? sums_equal_source
tokens_1m <- nothing
tokens_archive <- nothing ? ahead_of_retention
usage_1h <- usage_1m ? sums_equal_source
usage_1m <- nothing
utilization_1h <- utilization_1m ? sums_equal_source
utilization_1m <- nothing
utilization_archive <- nothing ? ahead_of_retention
"""


def test_the_asset_graph_is_the_one_reviewed():
    graph = defs.resolve_asset_graph()
    lines = []
    for key in sorted(graph.get_all_asset_keys()):
        parents = " ".join(sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)) or "nothing"
        checks = sorted(check.name for check in graph.asset_check_keys if check.asset_key == key)
        lines.append(f"{key.to_user_string()} <- {parents}{' ? ' + ' '.join(checks) if checks else ''}")
    assert lines == GRAPH.strip().splitlines()


def test_every_asset_of_ours_says_what_it_is():
    graph = defs.resolve_asset_graph()
    assert not [key for key in graph.get_all_asset_keys() if not graph.get(key).description]


def test_the_schedule_runs_the_forecast_hourly_without_being_switched_on():
    schedule = defs.resolve_schedule_def("hourly_forecast")
    assert schedule.cron_schedule == "5 * * * *"
    assert schedule.job_name == FORECAST_JOB
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_archive_is_daily_without_being_switched_on():
    schedule = defs.resolve_schedule_def("daily_archive")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    keys = defs.resolve_job_def(schedule.job_name).asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in keys} == {f"{topic.split('.')[1]}_archive" for topic in TOPICS}


def test_without_data_a_run_says_what_to_do(client: Client, engine_settings: Settings):
    run = run_forecast(engine_settings)
    assert not run.success
    assert run.error is not None
    assert "nothing to plan from" in run.error
    assert "wattstream import" in run.error


def test_without_clickhouse_a_run_says_so(engine_settings: Settings, tmp_path: Path):
    nowhere = engine_settings.model_copy(update={"home": tmp_path, "port_base": engine_settings.port_base + 1})
    run = run_forecast(nowhere)
    assert run.error is not None
    assert "Is it running" in run.error


@pytest.fixture(scope="module")
def network(client: Client) -> datetime:
    """Five weeks of the synthetic network, up to now."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    lay_down_network(client, end - timedelta(days=35), end)
    return end


def test_a_run_forecasts_checks_and_reports(network: datetime, warehouse: Warehouse, engine_settings: Settings):
    run = run_forecast(engine_settings)
    assert run.error is None
    assert run.report is not None
    assert run.report.parent == (engine_settings.home / "reports").resolve()
    assert "Headroom today" in run.report.read_text("utf-8")
    scores = warehouse.frame("SELECT metric, subject, coverage, skill FROM forecast_scores WHERE chosen")
    assert scores["coverage"].is_between(0.1, 0.99).all()
    assert set(scores["subject"]) == {"", "shanghai", "guangdong", *SITES}
    counts = warehouse.frame("""
        SELECT countIf(p10 <= p50 AND p50 <= p90) AS ordered, countIf(p10 < p90) AS apart, count() AS all FROM forecasts
    """).row(0)
    assert counts[0] == counts[1] == counts[2] > 0
    with dg.DagsterInstance.from_config(str(engine_settings.home / "dagster")) as instance:
        records = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("power_1h"), "sums_equal_source"), limit=1
        )
        assert records[0].event is not None
        evaluations = [
            event.asset_check_evaluation_data.passed
            for event in (record.event.dagster_event for record in records if record.event)
            if event is not None
        ]
        assert evaluations == [True]
        latest = instance.get_latest_materialization_event(dg.AssetKey("forecast_report"))
        assert latest is not None
        assert latest.asset_materialization is not None
        assert {"report", "open", "summary"} <= latest.asset_materialization.metadata.keys()


def test_a_second_run_of_the_hour_leaves_one_issue(network: datetime, warehouse: Warehouse, engine_settings: Settings):
    before = warehouse.frame("SELECT count() AS n FROM forecasts")["n"].item()
    assert run_forecast(engine_settings).success
    issues = warehouse.frame("SELECT uniqExact(issued) AS issues, uniqExact(made) AS made, count() AS n FROM forecasts")
    assert issues["made"].item() == issues["issues"].item()
    assert before <= issues["n"].item() <= before * issues["issues"].item()
