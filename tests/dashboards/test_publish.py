"""Against the stand-in for Grafana of conftest.py, which keeps to the documented HTTP API: it is not Grafana."""

from dataclasses import asdict
from typing import Any

import pytest

from dashboards.build import all_dashboards
from dashboards.clickhouse_query import DATASOURCE_UID
from dashboards.publish import FOLDER_UID, publish
from schemas.errors import UsageError, WattStreamError
from schemas.settings import Settings

TOKEN = "glsa_stand_in"
UIDS = [document["uid"] for document in all_dashboards()]


def settings(there: Any, **more: Any) -> Settings:
    given = {"grafana": there.url, "grafana_token": TOKEN, "clickhouse": "https://ch.example:8443"}
    return Settings(**(given | {"clickhouse_viewer_password": "correct horse"} | more))


def test_the_first_run_makes_folder_datasource_and_dashboards(grafana: Any) -> None:
    report = publish(settings(grafana))
    assert report.changed
    assert asdict(report)["dashboards"] == dict.fromkeys(UIDS, "created")
    assert set(grafana.dashboards) == set(UIDS)
    assert set(grafana.in_folder.values()) == {FOLDER_UID}
    assert grafana.folders[FOLDER_UID]["title"] == "WattStream"


def test_the_datasource_is_the_viewer_over_http_and_its_password_is_secret(grafana: Any) -> None:
    publish(settings(grafana))
    datasource = grafana.datasources[DATASOURCE_UID]
    assert datasource["type"] == "grafana-clickhouse-datasource"
    expected = {"host": "ch.example", "port": 8443, "secure": True, "protocol": "http", "username": "viewer"}
    assert expected.items() <= datasource["jsonData"].items()
    assert grafana.secrets[DATASOURCE_UID] == {"password": "correct horse"}
    assert "correct horse" not in str(grafana.datasources) + str(grafana.dashboards)


def test_a_second_run_changes_nothing_and_says_so(grafana: Any) -> None:
    publish(settings(grafana))
    grafana.writes.clear()
    report = publish(settings(grafana))
    assert grafana.writes == []
    assert not report.changed
    assert all(line.endswith("unchanged") for line in report.lines())


def test_what_somebody_changed_is_put_right_and_nothing_else_is_written(grafana: Any) -> None:
    publish(settings(grafana))
    grafana.dashboards[UIDS[1]]["title"] = "Mine"
    grafana.in_folder[UIDS[2]] = ""
    grafana.writes.clear()
    report = publish(settings(grafana))
    assert {uid for uid, change in report.dashboards.items() if change == "updated"} == {UIDS[1], UIDS[2]}
    assert grafana.writes == [("POST", "/api/dashboards/db")] * 2
    assert grafana.dashboards[UIDS[1]]["version"] == 2


def test_a_new_password_is_sent_though_grafana_tells_no_password(grafana: Any) -> None:
    publish(settings(grafana))
    report = publish(settings(grafana, clickhouse_viewer_password="battery staple"))
    assert report.datasource == "updated"
    assert grafana.secrets[DATASOURCE_UID] == {"password": "battery staple"}


def test_what_people_set_in_the_datasource_and_its_name_stay(grafana: Any) -> None:
    publish(settings(grafana))
    grafana.datasources[DATASOURCE_UID]["jsonData"]["tlsSkipVerify"] = True
    grafana.datasources[DATASOURCE_UID]["name"] = "Ours"
    publish(settings(grafana, clickhouse="https://other.example:8443"))
    there = grafana.datasources[DATASOURCE_UID]
    assert (there["name"], there["jsonData"]["tlsSkipVerify"], there["jsonData"]["host"]) == (
        "Ours",
        True,
        "other.example",
    )


def test_a_wrong_token_is_said_in_words_and_not_repeated(grafana: Any) -> None:
    with pytest.raises(WattStreamError, match=r"refused the token \(401\)") as caught:
        publish(settings(grafana, grafana_token="wrong-token"))
    assert "WATTSTREAM_GRAFANA_TOKEN" in str(caught.value)
    assert "wrong-token" not in str(caught.value)
    assert grafana.dashboards == {}


def test_a_token_that_may_not_write_is_told_the_role_it_needs(grafana: Any) -> None:
    grafana.allowed = False
    with pytest.raises(WattStreamError, match="needs the role Admin"):
        publish(settings(grafana))


def test_a_dashboard_changed_meanwhile_is_not_overwritten(grafana: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(settings(grafana))
    grafana.dashboards[UIDS[0]]["title"] = "Mine"
    answer = type(grafana).answer

    def late(self: Any, method: str, path: str, token: str, body: Any) -> Any:
        if method == "POST" and path == "/api/dashboards/db":
            self.dashboards[UIDS[0]]["version"] += 1
        return answer(self, method, path, token, body)

    monkeypatch.setattr(type(grafana), "answer", late)
    with pytest.raises(WattStreamError, match="publish again"):
        publish(settings(grafana))
    assert grafana.dashboards[UIDS[0]]["title"] == "Mine"


@pytest.mark.parametrize(
    ("more", "words"),
    [({"grafana": None}, "WATTSTREAM_GRAFANA"), ({"grafana_token": None}, "WATTSTREAM_GRAFANA_TOKEN")],
)
def test_what_is_not_set_is_asked_for(grafana: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        publish(settings(grafana, **more))


def test_a_grafana_that_is_not_there_is_said_so() -> None:
    absent = Settings(grafana="http://127.0.0.1:9", grafana_token=TOKEN)
    with pytest.raises(WattStreamError, match="does not answer"):
        publish(absent)
