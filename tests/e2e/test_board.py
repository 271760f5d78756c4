"""The board in a real browser, on a real engine: what each panel shows is what its own SQL answers beside it."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from playwright.sync_api import Browser, Page, sync_playwright

from dashboards.build import all_dashboards
from pipelines.local.parts import EmbeddedClickHouse, SettingsPart
from pipelines.local.processes import free_ports
from pipelines.migrate import migrate
from schemas.settings import Settings

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "test-artefacts" / "board"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

RANGE = "from=2026-11-20T06:00:00Z&to=2026-11-20T12:00:00Z"
AZURE_DAY = "from=2023-11-16T00:00:00Z&to=2023-11-17T00:00:00Z"
DOCUMENTS = {document["uid"]: document for document in all_dashboards()}
BOARD = [sys.executable, "-m", "dashboards.board.app"]
WAIT_SECONDS = 90


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, fill_board: Callable[[Settings], None]) -> Iterator[Settings]:
    """An engine of its own with the fixed six hours of tests/data/board.sql in it, and the board beside it."""
    settings = Settings(home=tmp_path_factory.mktemp("board"), port_base=free_ports(20))
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        migrate(settings)
        fill_board(settings)
        with SettingsPart("board", BOARD, settings, settings.port("board")):
            yield settings


@pytest.fixture(scope="module")
def viewer(stack: Settings) -> Client:
    return stack.clickhouse_client("viewer")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}: install chromium, or say where it is in CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Screen:
    """A page, and everything that went wrong on it or left this machine."""

    def __init__(self, browser: Browser, settings: Settings, **context: Any) -> None:
        self.base = f"http://127.0.0.1:{settings.port('board')}"
        self.context = browser.new_context(**({"viewport": {"width": 1680, "height": 1050}} | context))
        self.page: Page = self.context.new_page()
        self.page.clock.set_fixed_time("2026-11-20T12:00:30Z")  # so that "40 min ago" is always that
        self.troubles: list[str] = []
        self.whole = True
        self.page.on("console", lambda message: self._console(message.type, message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self._request(request.url))

    def _console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.troubles.append(f"{kind}: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:")):
            self.troubles.append(f"a request to {url}")

    def open(self, path: str, *, whole: bool = True) -> Page:
        """``whole``: so high that every panel is in view, as only those load."""
        self.whole = whole
        self.page.goto(self.base + path)
        self.page.wait_for_selector(".panel")
        if whole:
            height = self.page.evaluate("() => document.getElementById('panels').scrollHeight + 120")
            self.page.set_viewport_size({"width": 1680, "height": height})
        self.settle()
        return self.page

    def settle(self) -> None:
        """Until no panel in view loads any more; by asking, as the strict policy forbids a waiting function."""
        quiet = """(how) => window.board && window.board.panels[how]((panel) => panel.seen)
          && window.board.panels.every((panel) => !panel.seen
            || (panel.element.dataset.state !== 'loading' && !('loading' in panel.element.dataset)))"""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(quiet, "every" if self.whole else "some"):
            assert time.monotonic() < deadline, "the panels did not load"
            self.page.wait_for_timeout(50)

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture
def screen(browser: Browser, stack: Settings) -> Iterator[Screen]:
    screen = Screen(browser, stack)
    yield screen
    screen.context.close()


SHOWN = """() => window.board.panels.map((panel) => {
  const body = panel.body;
  const chart = [...body.querySelectorAll('*'), body].map((node) => panel.page.chart(node)).find(Boolean);
  const option = chart && chart.getOption();
  const cells = (row) => [...row.children].map((cell) => cell.dataset.value);
  return {
    id: panel.model.id, title: panel.model.title, kind: panel.model.type, state: panel.element.dataset.state,
    text: body.innerText, sql: panel.drawn ? panel.drawn.sql : [], times: panel.drawn ? panel.drawn.times : null,
    numbers: [...body.querySelectorAll('[data-name]'), ...(body.dataset.name ? [body] : [])]
      .map((node) => [node.dataset.name, node.dataset.value]),
    rows: [...body.querySelectorAll('tbody tr')].map(cells),
    series: option ? option.series.map((one) => ({ name: one.name, data: (one.data || []).map((item) =>
      Array.isArray(item) ? item : { name: item.name, value: item.value }) })) : [],
    names: option && option.yAxis ? option.yAxis[0].data : null,
    painted: chart ? chart.getModel().getSeries().map((one) => one.getData().count()) : [],
    cut: [...body.querySelectorAll('.stat-number')].map((node) => {
      const text = document.createRange();
      text.selectNodeContents(node);
      return text.getBoundingClientRect().right > body.getBoundingClientRect().right;
    }),
  };
})"""


def answer(viewer: Client, sql: str) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of a query asked beside the board, in another format than the board's; times in ms."""
    result = viewer.query(sql)
    rows = [[_plain(value) for value in row] for row in result.result_rows]
    return list(result.column_names), rows


def _plain(value: Any) -> Any:
    if hasattr(value, "timestamp"):
        return round(value.timestamp() * 1000)
    if isinstance(value, float) and value != value:
        return None
    return value


def lines_of(columns: list[str], rows: list[list[Any]]) -> dict[tuple[str, str, int], Any]:
    """(column, label, time) → number, without what is missing."""
    numbers = {i for i in range(len(columns)) for row in rows if isinstance(row[i], int | float) and i > 0}
    found: dict[tuple[str, str, int], Any] = {}
    for row in rows:
        label = " ".join(str(row[i]) for i in range(1, len(columns)) if i not in numbers and isinstance(row[i], str))
        for i in numbers:
            if row[i] is not None:
                found[columns[i], label, row[0]] = row[i]
    return found


def same(shown: Any, expected: Any) -> bool:
    if expected in {None, ""} or shown in {None, ""}:
        return expected in {None, ""} and shown in {None, ""}
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return float(shown) == pytest.approx(float(expected), rel=1e-12)
    return str(shown) == str(expected)


def hold(panel: dict[str, Any], viewer: Client) -> None:
    """What the panel shows equals what its SQL answers."""
    columns, rows = answer(viewer, panel["sql"][0])
    where = f"{panel['title']} ({panel['kind']})"
    match panel["kind"]:
        case "timeseries":
            expected = lines_of(columns, rows)
            shown = {}
            for one in panel["series"]:
                for item in one["data"]:
                    time, value = item["value"] if isinstance(item, dict) else item
                    if value is not None:
                        shown[one["name"], time] = value
            flat = {(label or column, time): value for (column, label, time), value in expected.items()}
            assert shown.keys() == flat.keys(), where
            assert all(same(shown[key], flat[key]) for key in flat), where
        case "heatmap":
            flat = {(label, time): value for (_, label, time), value in lines_of(columns, rows).items()}
            assert len(panel["series"][0]["data"]) == len(flat), where
            values = sorted(item[2] for item in panel["series"][0]["data"])
            assert values == pytest.approx(sorted(flat.values())), where
        case "state-timeline":
            bars = panel["series"][0]["data"]
            for time, site, state in rows:
                row = panel["names"].index(site)
                assert any(
                    bar["value"][0] == row and bar["value"][1] <= time < bar["value"][2] and bar["value"][3] == state
                    for bar in bars
                ), (where, site, time, state)
        case "geomap":
            shown = {item["name"]: item["value"] for item in panel["series"][0]["data"]}
            expected = {row[0]: [row[2], row[1], row[3]] for row in rows}
            assert shown == pytest.approx(expected) if not expected else shown.keys() == expected.keys(), where
            assert all(same(a, b) for key in expected for a, b in zip(shown[key], expected[key], strict=True)), where
        case "table":
            assert len(panel["rows"]) == min(len(rows), 1000), where
            for shown_row, row in zip(panel["rows"], rows, strict=False):
                assert all(same(a, b) for a, b in zip(shown_row, row, strict=True)), (where, shown_row, row)
        case "bargauge":
            assert [name for name, _ in panel["numbers"]] == [row[0] for row in rows if row[1] is not None], where
            assert all(same(shown[1], row[1]) for shown, row in zip(panel["numbers"], rows, strict=True)), where
        case "stat" | "gauge":
            known = [row[-1] for row in rows if row[-1] is not None]  # the last that is known
            assert len(panel["numbers"]) == 1, where
            assert same(panel["numbers"][0][1], known[-1]), (where, panel["numbers"], known[-1])
        case kind:
            assert kind == "text", where


@pytest.mark.parametrize("uid", DOCUMENTS)
def test_each_panel_shows_what_its_own_sql_answers(uid: str, screen: Screen, viewer: Client) -> None:
    page = screen.open(f"/d/{uid}?{RANGE}")
    panels = page.evaluate(SHOWN)
    screen.picture(uid)
    assert len(panels) == len(DOCUMENTS[uid]["panels"])
    assert [(p["title"], p["text"]) for p in panels if p["state"] == "error"] == []
    for panel in panels:
        if panel["state"] == "ready" and panel["kind"] != "text":
            hold(panel, viewer)
            assert not any(panel["cut"]), panel["title"]
        elif panel["state"] == "empty":
            _, rows = answer(viewer, panel["sql"][0])
            assert not any(value is not None for row in rows for value in row[1:]), panel["title"]
    empty = {panel["title"] for panel in panels if panel["state"] == "empty"}
    assert empty <= {"Audit"}, "the fixed data fills every other panel"
    assert screen.troubles == []


def test_the_day_of_the_azure_trace_shows_its_totals_in_full(screen: Screen) -> None:
    page = screen.open(f"/d/wattstream-tokens?{AZURE_DAY}")
    shown = {panel["title"]: panel["text"] for panel in page.evaluate(SHOWN)}
    screen.picture("azure-day")
    assert shown["Input tokens"].strip() == "18,059,974"
    assert shown["Output tokens"].strip() == "245,896"
    assert shown["Requests"].startswith("8,819")
    assert screen.troubles == []


def test_a_state_that_began_before_the_range_is_drawn(screen: Screen) -> None:
    """The range begins within a bucket, as one that ends now always does."""
    page = screen.open("/d/wattstream-noc?from=2026-11-20T06:00:37Z&to=2026-11-20T12:00:37Z")
    timelines = [panel for panel in page.evaluate(SHOWN) if panel["kind"] == "state-timeline"]
    assert timelines
    for panel in timelines:
        assert panel["painted"] == [len(one["data"]) for one in panel["series"]], panel["title"]
        assert panel["painted"][0] > 0


def test_a_number_of_any_length_is_shown_whole(screen: Screen) -> None:
    page = screen.open(f"/d/wattstream-tokens?{AZURE_DAY}")
    long = """async () => {
      const { stat } = await import('/static/numbers.js');
      const panel = window.board.panels.find((one) => one.model.title === 'Input tokens');
      const [number] = panel.drawn.numbers;
      stat(panel.body, { ...panel.drawn, numbers: [{ ...number, value: 3037353461557999 }] });
    }"""
    page.evaluate(long)
    [panel] = [panel for panel in page.evaluate(SHOWN) if panel["title"] == "Input tokens"]
    assert panel["text"].strip() == "3,037,353,461,557,999"
    assert panel["cut"] == [False]


def test_a_control_room_sees_what_is_wrong(screen: Screen) -> None:
    page = screen.open(f"/d/wattstream-noc?{RANGE}")
    [wrong] = [panel for panel in page.evaluate(SHOWN) if panel["title"] == "What is wrong now"]
    found = {(row[1], row[2]) for row in wrong["rows"]}
    assert ("qingpu-1", "power silent") in found
    assert "40 min ago" in wrong["text"]  # it stopped at 11:20
    assert any(what == "power near capacity" for _, what in found)
    assert any(what == "requests fail" for _, what in found)
    assert any(what == "link near capacity" for _, what in found)
    assert ("wattstream.power.v1", "dead letters") in found
    assert [row[0] for row in wrong["rows"]] == sorted((row[0] for row in wrong["rows"]), key="critical warning".index)


def test_where_there_is_no_data_it_says_so_and_shows_no_zero(screen: Screen) -> None:
    for uid in ("wattstream-noc", "wattstream-tokens"):
        page = screen.open(f"/d/{uid}?from=2001-01-01T00:00:00Z&to=2001-01-01T06:00:00Z")
        panels = {panel["title"]: panel for panel in page.evaluate(SHOWN)}
        timed = [p for p in panels.values() if p["kind"] in {"timeseries", "heatmap", "state-timeline", "gauge"}]
        assert {p["state"] for p in timed} <= {"empty"}
        assert {p["text"] for p in timed} <= {"no data"}
    assert screen.troubles == []


def test_a_panel_that_fails_says_why_and_the_others_go_on(screen: Screen) -> None:
    message = "ClickHouse: Memory limit exceeded (code 241)"
    screen.page.route(
        "**/api/dashboards/wattstream-noc/panels/2?*",
        lambda route: route.fulfill(status=502, json={"error": message}),
    )
    page = screen.open(f"/d/wattstream-noc?{RANGE}", whole=False)
    panels = {panel["id"]: panel for panel in page.evaluate(SHOWN)}
    assert (panels[2]["state"], panels[2]["text"]) == ("error", message)
    assert panels[1]["state"] == panels[3]["state"] == "ready"


def test_an_answer_that_is_given_up_half_way_for_a_newer_one_changes_nothing(screen: Screen) -> None:
    page = screen.open(f"/d/wattstream-noc?{RANGE}", whole=False)
    before = page.evaluate(SHOWN)
    page.evaluate(
        """() => {
          const json = Response.prototype.json;
          let cut = 3;
          Response.prototype.json = function () {
            return cut-- > 0 ? Promise.reject(new DOMException("given up", "AbortError")) : json.call(this);
          };
          window.board.reload();
        }"""
    )
    screen.settle()
    assert page.evaluate(SHOWN) == before
    assert screen.troubles == []


def test_dragging_over_a_chart_zooms_every_panel_and_the_address(screen: Screen) -> None:
    page = screen.open(f"/d/wattstream-tokens?{RANGE}", whole=False)
    box = page.locator(".panel.timeseries .canvas").first.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, y, steps=8)
    page.mouse.up()
    page.wait_for_url("**from=17*")
    screen.settle()
    spans = page.evaluate(
        "() => window.board.panels.filter((panel) => panel.seen).map((panel) => panel.drawn.to - panel.drawn.from)"
    )
    assert len(set(spans)) == 1
    assert 0.5 * 3600e3 < spans[0] < 3 * 3600e3
    assert screen.troubles == []


def test_a_variable_narrows_every_panel_and_stays_in_the_address(screen: Screen, viewer: Client) -> None:
    page = screen.open(f"/d/wattstream-campus?{RANGE}")
    page.click("[data-control='var-site']")
    page.fill(".variable-box input[type='search']", "zhongwei-1")
    page.check(".options input[value='zhongwei-1']")
    page.keyboard.press("Escape")
    screen.settle()
    assert "var-site=zhongwei-1" in page.url
    panels = {panel["title"]: panel for panel in page.evaluate(SHOWN)}
    assert {row[0] for row in panels["Meters"]["rows"]} == {"zhongwei-1"}
    hold(panels["Utility"], viewer)
    page.reload()
    screen.settle()
    assert page.inner_text("[data-control='var-site']") == "Site: zhongwei-1"


def test_inspect_shows_the_sql_and_the_rows_and_gives_the_csv(screen: Screen) -> None:
    page = screen.open(f"/d/wattstream-noc?{RANGE}", whole=False)
    wrong = page.locator(".panel", has_text="What is wrong now")
    wrong.hover()
    wrong.locator(".inspect").click()
    page.wait_for_selector(".inspect-dialog tbody tr")
    assert "FROM" in page.inner_text(".inspect-dialog pre")
    with page.expect_download() as download:
        page.click(".inspect-dialog a.button")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) - 1 == page.locator(".inspect-dialog tbody tr").count()
    screen.picture("inspect")
    page.keyboard.press("Escape")
    page.wait_for_selector(".inspect-dialog", state="detached")
    assert screen.troubles == []


def test_light_and_phone_fit_and_are_readable(browser: Browser, stack: Settings) -> None:
    for name, context, theme in (
        ("light", {}, "light"),
        ("phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}, "dark"),
    ):
        screen = Screen(browser, stack, **context)
        page = screen.open(f"/d/wattstream-noc?{RANGE}&theme={theme}", whole=False)
        screen.picture(name)
        assert page.evaluate("() => document.scrollingElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("() => document.documentElement.dataset.theme") == theme
        assert screen.troubles == []
        screen.context.close()


UNITS = [
    (6_060_000, "watt", None, "6.06 MW"),
    (165_300, "short", 1, "165.3 K"),
    (1.02, "s", None, "1.02 s"),
    (118 * 1024**2, "bytes", None, "118 MiB"),
    (90, "s", None, "1.50 mins"),
    (18_059_974, "locale", None, "18,059,974"),
    (0.9716, "percentunit", 1, "97.2%"),
    (23_500_000_000, "watth", None, "23.5 GWh"),
    (400e9, "bps", None, "400 Gb/s"),
    (74.25, "celsius", 1, "74.3 °C"),
    (0.0049, "s", None, "4.90 ms"),
    (0, "watt", None, "0 W"),
    (-9_970_000, "watt", None, "-9.97 MW"),
    (1.1825, "none", 3, "1.183"),
    (2_000_000_000_000, "short", None, "2 Tri"),
]


def test_units_are_written_as_grafana_writes_them(screen: Screen) -> None:
    screen.page.goto(f"{screen.base}/")
    cases = [[value, unit, decimals] for value, unit, decimals, _ in UNITS]
    shown = screen.page.evaluate(
        "(cases) => import('/static/units.js').then((units) => cases.map((one) => units.format(...one)))", cases
    )
    assert shown == [text for *_, text in UNITS]


def test_the_board_ends_when_it_is_told(stack: Settings) -> None:
    port = free_ports(20)
    with SettingsPart("board-2", BOARD, stack.model_copy(update={"port_base": port}), port + 3) as board:
        assert board.answers()
    assert not board.answers()
