"""Old runs of Dagster are forgotten, or its folder would grow by 2 GB a year."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

KEPT = timedelta(days=14)
"""Runs, their events and their pages are kept for so long."""


def forget_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the runs that were created before; returns how many."""
    old = instance.get_run_records(filters=dg.RunsFilter(created_before=before))
    for record in old:
        run_id = record.dagster_run.run_id
        instance.delete_run(run_id)
        # Dagster deletes the rows of a run but leaves the file that it has for each.
        (Path(instance.root_directory) / "history" / "runs" / f"{run_id}.db").unlink(missing_ok=True)
    return len(old)


@dg.op(description=f"Delete runs older than {KEPT.days} days.")
def forget_old_runs(context: dg.OpExecutionContext) -> None:
    """Of every job."""
    context.log.info(f"{forget_runs(context.instance, datetime.now(UTC) - KEPT)} runs forgotten")


@dg.job(description="Keeps Dagster's own folder small.")
def housekeeping() -> None:
    """Daily."""
    forget_old_runs()
