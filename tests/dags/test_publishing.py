"""The asset publishes what the command publishes, against the stand-in for Grafana that the command is tested with."""

from typing import Any

import pytest

from dags.definitions import defs
from schemas.settings import Settings
from tests.dashboards import conftest as dashboards

grafana = dashboards.grafana


def published(settings: Settings) -> dict[str, Any]:
    result = defs.resolve_job_def("publish").execute_in_process(resources={"settings": settings}, raise_on_error=True)
    metadata = result.asset_materializations_for_node("published_dashboards")[0].metadata
    return {name: value.value for name, value in metadata.items()}


def test_the_dashboards_are_there_and_a_second_run_changes_nothing(grafana: Any):
    settings = Settings(grafana=grafana.url, grafana_token="glsa_stand_in", clickhouse_viewer_password="hush")
    assert published(settings)["changed"] is True
    assert grafana.dashboards
    again = published(settings)
    assert again["changed"] is False
    assert "hush" not in str(again)


def test_a_wrong_token_fails_the_run_with_words(grafana: Any):
    settings = Settings(grafana=grafana.url, grafana_token="glsa_wrong", clickhouse_viewer_password="hush")
    with pytest.raises(Exception, match="refused the token"):
        published(settings)


def test_without_a_grafana_it_says_so():
    assert "WATTSTREAM_GRAFANA is not set" in published(Settings())["published"]
