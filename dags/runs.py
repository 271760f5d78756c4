"""One run of the forecast job in this process."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dags.instance import environment, prepare
from schemas.settings import Settings

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult
    from dagster._utils.error import SerializableErrorInfo


@dataclass(frozen=True)
class ForecastRun:
    """How a run went: where the report is, or in words why there is none."""

    report: Path | None
    error: str | None = None

    @property
    def success(self) -> bool:
        """Whether there is a report."""
        return self.error is None and self.report is not None


def run_forecast(settings: Settings) -> ForecastRun:
    """Execute the job ``forecast`` now; the run is in Dagster's pages like every other. Takes up to a minute."""
    os.environ.update(environment(settings))  # before the first import: telemetry is decided there
    home = prepare(settings)
    import dagster as dg

    from dags.definitions import FORECAST_JOB, defs

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    job = defs.resolve_job_def(FORECAST_JOB)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            resources={"settings": settings},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        if not result.success:
            return ForecastRun(None, _why(result))
        metadata = result.asset_materializations_for_node("forecast_report")[0].metadata
    return ForecastRun(Path(str(metadata["report"].value)))


def _why(result: "ExecuteInProcessResult") -> str:
    """What a user is told: the step's own words, else those of our error, else of the first cause."""
    for event in result.all_events:
        step = event.step_failure_data if event.is_step_failure else None
        if step is not None and step.user_failure_data is not None and step.user_failure_data.description:
            return step.user_failure_data.description
        job = event.job_failure_data if event.is_job_failure else None
        error = step.error if step is not None else job.error if job is not None else None
        causes: list[SerializableErrorInfo] = []
        while error is not None:
            causes.append(error)
            error = error.cause
        ours = [cause for cause in causes if cause.cls_name in {"WattStreamError", "UsageError"}]
        if causes:
            return (ours or causes)[-1].message.strip().removeprefix("schemas.errors.WattStreamError: ")
    return "Dagster did not say why; its pages may."
