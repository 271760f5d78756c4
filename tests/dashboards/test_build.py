import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.build import READABLE, all_dashboards, build, check, tables_read
from schemas.tables import COARSER

DOCUMENTS = all_dashboards()
PANELS = [(d["uid"], p) for d in DOCUMENTS for p in d["panels"]]


def broken(change: Any) -> list[str]:
    documents = copy.deepcopy(DOCUMENTS)
    change(documents)
    return [str(problem) for problem in check(documents)]


def test_nothing_is_wrong_with_the_dashboards() -> None:
    assert [str(problem) for problem in check()] == []


def test_each_dashboard_is_a_file_named_by_its_uid(tmp_path: Path) -> None:
    files = build(tmp_path / "out")
    assert [file.stem for file in files] == [d["uid"] for d in DOCUMENTS]
    assert [json.loads(file.read_text()) for file in files] == DOCUMENTS


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = ([file.read_bytes() for file in build(tmp_path / name)] for name in ("a", "b"))
    assert first == second


def test_a_caller_that_changes_a_dashboard_changes_only_its_own() -> None:
    all_dashboards()[0]["title"] = "mine"
    assert all_dashboards()[0]["title"] == DOCUMENTS[0]["title"]


def test_panels_have_ids_of_their_own_and_places_that_do_not_overlap() -> None:
    for document in DOCUMENTS:
        ids = [panel["id"] for panel in document["panels"]]
        assert len(set(ids)) == len(ids)
        taken: set[tuple[int, int]] = set()
        for panel in document["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[1].update(uid=d[0]["uid"]), "used twice"),
        (lambda d: d[0]["panels"][0].update(titel="x"), "titel is not known"),
        (lambda d: d[0]["panels"][1].update(title=d[0]["panels"][0]["title"]), "two panels"),
        (lambda d: d[0]["panels"][0].pop("interval"), "no minimum interval"),
        (lambda d: d[0]["panels"][0].pop("description"), "no description"),
        (lambda d: d[0]["panels"][0]["fieldConfig"]["defaults"].pop("unit"), "no unit"),
        (lambda d: sql(d, "SELECT count() AS n FROM tokens"), "reads tokens"),
        (lambda d: sql(d, "SELECT x FROM tokens_1m WHERE site = $site"), "bare"),
        (lambda d: sql(d, "SELECT x FROM tokens_1m WHERE site = ${site}"), "bare"),
        (lambda d: sql(d, "SELECT x FROM tokens_1m WHERE site IN (${city:singlequote})"), "doesn't have"),
        (lambda d: sql(d, "SELECT * FROM tokens_1m"), "selects *"),
    ],
)
def test_the_check_finds_what_is_broken(change: Any, message: str) -> None:
    assert any(message in problem for problem in broken(change)), broken(change)


def sql(documents: list[dict[str, Any]], text: str) -> None:
    campus = next(d for d in documents if d["uid"] == "wattstream-campus")
    campus["panels"][0]["targets"][0]["rawSql"] = text


def test_what_may_be_read_has_no_raw_table_in_it() -> None:
    assert not {"power", "utilization", "tokens", "links", "packages", "rates"} & READABLE
    assert not set(COARSER) & READABLE  # rebuilt later: a wall would be an hour behind


def test_the_names_of_with_are_not_tables() -> None:
    assert tables_read("WITH a AS (SELECT x FROM power_1m) SELECT x FROM a JOIN pue(start = 1, stop = 2) AS b") == {
        "power_1m",
        "pue",
    }


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=[f"{uid}-{panel['title']}" for uid, panel in PANELS])
def test_a_panel_over_time_reads_whole_buckets_and_leaves_gaps(uid: str, panel: dict[str, Any]) -> None:
    for target in panel.get("targets", []):
        if target["queryType"] == "timeseries" and panel["type"] != "state-timeline":
            assert "WITH FILL" in target["rawSql"]
            assert "toStartOfInterval($__toTime" in target["rawSql"]
        assert not re.search(r"\b(?:coalesce|ifNull|zeroIfNull|fillna)\b", target["rawSql"]), (
            "missing must stay missing"
        )


def test_tokens_are_shown_in_full() -> None:
    tokens = next(d for d in DOCUMENTS if d["uid"] == "wattstream-tokens")
    panel = next(p for p in tokens["panels"] if p["title"] == "Input tokens")
    assert (panel["type"], panel["fieldConfig"]["defaults"]["unit"]) == ("stat", "locale")
