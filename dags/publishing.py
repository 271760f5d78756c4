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

    publish(settings)
    return dg.MaterializeResult(metadata={"published": dg.MetadataValue.url(settings.grafana)})


ASSETS = [published_dashboards]
