"""Grafana's ClickHouse query, which the foundation SDK has no type for."""

from dataclasses import dataclass
from typing import Any, Self

from grafana_foundation_sdk.cog import builder, runtime, variants
from grafana_foundation_sdk.models.dashboard import DataSourceRef

DATASOURCE_TYPE = "grafana-clickhouse-datasource"
DATASOURCE_UID = "wattstream-clickhouse"
DATASOURCE = DataSourceRef(type_val=DATASOURCE_TYPE, uid=DATASOURCE_UID)

PLUGIN_VERSION = "4.11.0"
"""The datasource plugin whose query model this is (editorType, queryType and format side by side since 4.0)."""

# The plugin's numbers for what a result is; a time series is pivoted from long to wide before it is drawn.
FORMATS = {"timeseries": 0, "table": 1}


@dataclass
class ClickHouseQuery(variants.Dataquery):
    """One SQL query; ``kind`` is timeseries (time, labels, numbers: long) or table."""

    sql: str
    kind: str = "table"
    ref_id: str = "A"

    def to_json(self) -> dict[str, object]:
        """As the plugin's editor saves it."""
        return {
            "refId": self.ref_id,
            "datasource": DATASOURCE,
            "editorType": "sql",
            "queryType": self.kind,
            "format": FORMATS[self.kind],
            "rawSql": self.sql,
            "pluginVersion": PLUGIN_VERSION,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The reverse of :meth:`to_json`."""
        return cls(sql=data["rawSql"], kind=data["queryType"], ref_id=data["refId"])


class Query(builder.Builder[ClickHouseQuery]):
    """The SDK's panels take builders."""

    def __init__(self, sql: str, kind: str) -> None:
        self._query = ClickHouseQuery(sql, kind)

    def build(self) -> ClickHouseQuery:
        """The query."""
        return self._query


def register() -> None:
    """Make the SDK read such queries back; without it a round trip proves nothing of them."""
    runtime.register_dataquery_variant(
        runtime.DataqueryConfig(identifier=DATASOURCE_TYPE, from_json_hook=ClickHouseQuery.from_json)
    )
