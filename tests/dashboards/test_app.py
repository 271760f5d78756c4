"""The board's web server, with a source that answers without a database."""

import re
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from dashboards.board.app import create_app
from dashboards.board.data import QueryError, Source
from dashboards.build import all_dashboards

NOW = datetime(2026, 11, 20, 12, 0, 3, tzinfo=UTC)
NOC = all_dashboards()[0]
PAGES = ["/", *(f"/d/{document['uid']}" for document in all_dashboards())]


class Asked:
    def __init__(self) -> None:
        self.queries: list[str] = []
        self.fails = False

    def __call__(self, sql: str) -> pa.Table:
        self.queries.append(sql)
        if self.fails:
            raise QueryError("ClickHouse: no such column (code 47)")
        if "DISTINCT" in sql and "toStartOfInterval" not in sql:
            return pa.table({"site": ["zhongwei-1", "it's"]})
        return pa.table({"n": [18_059_974], "who": ["<script>alert(1)</script>"]})


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def client(asked: Asked) -> TestClient:
    return TestClient(create_app(Source(asked), lambda: NOW), base_url="http://localhost:18803")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_run_only_scripts_of_this_board(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|style=|https?://", answer.text)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:18803", ""])
def test_another_name_than_loopback_is_refused(client: TestClient, host: str, asked: Asked) -> None:
    for path in ("/", "/health", "/api/dashboards/wattstream-noc/panels/1"):
        assert client.get(path, headers={"host": host}).status_code == 421
    assert asked.queries == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:18803", "[::1]:18803", "LOCALHOST:1"])
def test_loopback_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).json()["status"] == "ok"


FOREIGN = [
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "origin": "http://localhost:3000"},
    {"origin": "https://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_is_refused_before_anything_is_asked(
    client: TestClient, headers: dict[str, str], asked: Asked
) -> None:
    for method in ("GET", "POST"):
        refused = client.request(method, "/api/dashboards/wattstream-noc/panels/1", headers=headers)
        assert refused.status_code == 403
        assert "another site" in refused.text
        assert "access-control-allow-origin" not in refused.headers
    assert asked.queries == []


def test_a_link_from_another_site_leads_to_the_board_and_a_form_does_not(client: TestClient) -> None:
    leads = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/d/wattstream-noc", headers=leads).status_code == 200
    assert client.post("/d/wattstream-noc", headers=leads).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "same-origin", "origin": "https://noc.example"},
        {"origin": "http://localhost:18803"},
    ],
    ids=str,
)
def test_the_boards_own_pages_are_answered_also_behind_a_proxy(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/health", headers=headers).status_code == 200


def test_behind_a_proxy_every_address_has_its_prefix(client: TestClient) -> None:
    page = client.get("/d/wattstream-noc", headers={"x-forwarded-prefix": "/noc/"}).text
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith("/noc/") for address in addresses)
    assert 'data-prefix="/noc"' in page


@pytest.mark.parametrize("prefix", ['"><script>', "//evil.example", "https://evil.example", "/a b"])
def test_a_prefix_that_is_no_path_is_ignored(client: TestClient, prefix: str) -> None:
    assert 'data-prefix=""' in client.get("/", headers={"x-forwarded-prefix": prefix}).text


def test_an_answer_that_did_not_change_is_not_sent_again(client: TestClient) -> None:
    path = "/api/dashboards/wattstream-noc/panels/1?from=2026-11-20T09:00:00Z&to=2026-11-20T12:00:00Z"
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_long_answers_and_echarts_are_compressed(client: TestClient) -> None:
    assert client.get("/api/dashboards/wattstream-noc").headers["content-encoding"] == "gzip"
    script = re.search(r'"\./(index-[^"]+\.js)"', client.get("/echarts/index.js").text)
    assert script
    answer = client.get(f"/echarts/{script[1]}")
    assert answer.headers["content-encoding"] == "gzip"
    assert "javascript" in answer.headers["content-type"]
    assert len(answer.content) > 500_000


@pytest.mark.parametrize(
    "path",
    [
        "/echarts/nothing.js",
        "/echarts/..%2f..%2fecharts.py",
        "/static/../app.py",
        "/d/nothing",
        "/api/dashboards/wattstream-noc/panels/999",
    ],
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_now_is_a_minute_ago_and_rounded_to_the_refresh(client: TestClient) -> None:
    drawn = client.get("/api/dashboards/wattstream-noc/panels/1?from=now-1h&to=now&refresh=10s").json()
    stop = datetime.fromtimestamp(drawn["to"] / 1000, UTC)
    assert stop == datetime(2026, 11, 20, 11, 59, tzinfo=UTC)


def test_a_variable_takes_only_what_is_among_its_options(client: TestClient, asked: Asked) -> None:
    base = "/api/dashboards/wattstream-campus/panels/1?from=now-1h&to=now"
    refused = client.get(base, params={"from": "now-1h", "to": "now", "var-site": "x' OR 1=1 --"})
    assert refused.status_code == 400
    assert "is not there" in refused.json()["error"]
    assert not any("OR 1=1" in sql for sql in asked.queries)
    taken = client.get(base, params={"from": "now-1h", "to": "now", "var-site": "it's"}).json()
    assert r"site IN ('it\'s')" in taken["sql"][0]


def test_all_of_a_variable_sets_no_condition(client: TestClient) -> None:
    for value in ({}, {"var-site": "$__all"}, {"var-site": "All"}):
        assert "1=1" in client.get("/api/dashboards/wattstream-campus/panels/1", params=value).json()["sql"][0]


def test_the_variables_call_drops_what_is_no_option_and_says_which(client: TestClient) -> None:
    [site] = client.get("/api/dashboards/wattstream-campus/variables", params={"var-site": "gone"}).json()
    assert (site["chosen"], site["unknown"], site["options"]) == (["$__all"], ["gone"], ["zhongwei-1", "it's"])


@pytest.mark.parametrize("query", ["from=now&to=now-1h", "from=yesterday&to=now", "from=now-6x&to=now"])
def test_a_range_that_is_none_is_said_in_words(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/dashboards/wattstream-noc/panels/1?{query}")
    assert answer.status_code == 400
    assert "from" in answer.json()["error"] or "time" in answer.json()["error"]


def test_an_error_of_the_query_is_said_in_words(client: TestClient, asked: Asked) -> None:
    asked.fails = True
    answer = client.get("/api/dashboards/wattstream-noc/panels/1")
    assert (answer.status_code, answer.json()) == (502, {"error": "ClickHouse: no such column (code 47)"})


def test_the_rows_behind_a_panel_can_be_seen_and_taken_away(client: TestClient) -> None:
    rows = client.get("/api/dashboards/wattstream-noc/panels/1/rows").json()
    assert [column["values"] for column in rows["columns"]] == [[18_059_974], ["<script>alert(1)</script>"]]
    download = client.get("/api/dashboards/wattstream-noc/panels/1/csv")
    assert download.headers["content-disposition"].startswith("attachment")
    assert download.text.splitlines() == ['"n","who"', '18059974,"<script>alert(1)</script>"']


def test_all_panels_of_a_screen_are_asked_once_however_many_screens_look(client: TestClient, asked: Asked) -> None:
    numbers = [panel["id"] for panel in NOC["panels"] if panel["type"] != "text"]
    for _ in range(30):
        for number in numbers:
            client.get(f"/api/dashboards/wattstream-noc/panels/{number}?from=now-3h&to=now&refresh=10s")
    assert len(asked.queries) == len(set(asked.queries)) == len(numbers)
