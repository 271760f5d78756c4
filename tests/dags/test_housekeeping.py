"""Old runs go, with their files; newer ones stay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from dags.housekeeping import forget_runs


@dg.op
def nothing() -> None: ...


@dg.job
def idle() -> None:
    nothing()


def test_only_runs_before_the_time_are_forgotten_and_leave_no_file(tmp_path: Path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        first = idle.execute_in_process(instance=instance)
        between = datetime.now(UTC)
        second = idle.execute_in_process(instance=instance)
        assert forget_runs(instance, between - timedelta(days=1)) == 0
        assert forget_runs(instance, between) == 1
        assert [run.run_id for run in instance.get_runs()] == [second.run_id]
        files = {file.stem for file in (tmp_path / "history" / "runs").glob("*.db")}
        assert first.run_id not in files
        assert second.run_id in files
