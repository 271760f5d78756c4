"""The dashboards, published to Grafana where one is configured."""

import dagster as dg

from schemas.settings import Settings


@dg.asset(
    name="published_dashboards",
    group_name="dashboards",
    kinds={"grafana"},
    description="Folder, datasource and dashboards in Grafana; a second time changes nothing.",
)
def published_dashboards(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Publish, or say that no Grafana is configured."""
    if settings.grafana is None:
        return dg.MaterializeResult(metadata={"published": "no: WATTSTREAM_GRAFANA is not set"})
    from dashboards.publish import publish

    report = publish(settings)
    parts = dg.MetadataValue.md("\n".join(f"- {line}" for line in report.lines()))
    return dg.MaterializeResult(
        metadata={"published": dg.MetadataValue.url(report.url), "changed": report.changed, "parts": parts}
    )


ASSETS = [published_dashboards]
