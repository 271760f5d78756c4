"""What Dagster loads: the assets and their checks, the jobs, the schedules, and the two things that they need."""

from collections.abc import Iterator

import dagster as dg

from dags import capacity, demand, forecasts, hourly, hourly_measures, publishing, reports
from dags.archive import assets as archive
from dags.clickhouse import Warehouse
from dags.housekeeping import housekeeping
from schemas.settings import Settings, load
from schemas.tables import HOURLY

FORECAST_JOB = "forecast"


@dg.resource
def settings(_: dg.InitResourceContext) -> Settings:
    """From the environment, as for every part of a stack."""
    return load()


@dg.resource(required_resource_keys={"settings"})
def warehouse(context: dg.InitResourceContext) -> Iterator[Warehouse]:
    """ClickHouse as the planner."""
    with Warehouse.of(context.resources.settings) as opened:
        yield opened


SOURCES = [
    dg.AssetSpec(name, group_name="streams", kinds={"clickhouse"}, description="Written by the stream workers.")
    for name in (*HOURLY, "capacity", "emitters")
] + [
    dg.AssetSpec(name, group_name="catalogue", kinds={"clickhouse"}, description="The reference catalogue.")
    for name in ("sites", "fleet")
]

forecast_job = dg.define_asset_job(
    FORECAST_JOB,
    selection=dg.AssetSelection.groups("hourly", "planning"),
    description="Hourly tables, demand, forecasts, capacity, report.",
)
archive_job = dg.define_asset_job(
    "archive",
    selection=dg.AssetSelection.groups("archive"),
    description="Copies what is new in each topic to Parquet files.",
)
publish_job = dg.define_asset_job("publish", selection=dg.AssetSelection.groups("dashboards"))

defs = dg.Definitions(
    assets=[
        *SOURCES,
        *hourly.ASSETS,
        *hourly_measures.ASSETS,
        *demand.ASSETS,
        *forecasts.ASSETS,
        *capacity.ASSETS,
        *reports.ASSETS,
        *publishing.ASSETS,
        *archive.ASSETS,
    ],
    asset_checks=[*hourly.CHECKS, *demand.CHECKS, *forecasts.CHECKS, *archive.CHECKS],
    jobs=[forecast_job, archive_job, publish_job, housekeeping],
    schedules=[
        # Five minutes past: the hour's last events have arrived.
        dg.ScheduleDefinition(
            name="hourly_forecast",
            job=forecast_job,
            cron_schedule="5 * * * *",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
        # Soon after midnight UTC, when a day is whole.
        dg.ScheduleDefinition(
            name="daily_archive",
            job=archive_job,
            cron_schedule="20 0 * * *",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
        dg.ScheduleDefinition(
            name="daily_housekeeping",
            job=housekeeping,
            cron_schedule="35 3 * * *",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
    ],
    resources={"settings": settings, "warehouse": warehouse},
    # One process a run: five would each import Dagster and Polars anew.
    executor=dg.in_process_executor,
)
