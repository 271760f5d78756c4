"""The archive in Dagster: an asset a topic, and a check that retention will pass nothing unarchived."""

import dagster as dg

from dags.archive.run import TOPICS, archive, look
from schemas.events import name_of
from schemas.settings import Settings


def _asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{name}_archive",
        group_name="archive",
        kinds={"kafka", "parquet"},
        description=f"The topic of {name} in Parquet files by day of arrival, so that it outlives Kafka's retention.",
    )
    def archived(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        report = archive(settings, [name])
        if report.problems:
            raise dg.Failure(description="; ".join(report.problems))
        return dg.MaterializeResult(
            metadata={
                "files": report.files,
                "messages": report.messages,
                "bytes": report.bytes,
                "files_read_again": report.checked,
                "archived_to": {name: reach.archived_to for name, reach in report.by_partition.items()},
            }
        )

    return archived


def _check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=f"{name}_archive",
        description="The archive has no hole, and retention will pass nothing unarchived within a day.",
    )
    def ahead_of_retention(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        report = look(settings, [name])
        found = report.problems + report.warnings
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR if report.problems else dg.AssetCheckSeverity.WARN,
            metadata={
                "found": "; ".join(found) or "nothing",
                "waiting": {name: reach.waiting for name, reach in report.by_partition.items()},
            },
        )

    return ahead_of_retention


ASSETS = [_asset(name_of(topic)) for topic in TOPICS]
CHECKS = [_check(name_of(topic)) for topic in TOPICS]
