"""The report says what its tables say, stands alone in one file, and is honest about what is missing."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dags.capacity import CAPACITIES, capacity_outlook
from dags.forecasts import issue
from dags.reports import KEPT, Material, quantity, render, summary, write
from tests.dags.synthetic_network import cycle

ISSUED = datetime(2026, 3, 10, 15, tzinfo=UTC)


def rows(metric: str, scope: str, subject: str, unit: str, values: np.ndarray) -> pl.DataFrame:
    start = ISSUED - timedelta(hours=values.size)
    return pl.DataFrame({"hour": [start + timedelta(hours=n) for n in range(values.size)], "value": values}).select(
        pl.col("hour").cast(pl.Datetime("ms", "UTC")),
        metric=pl.lit(metric),
        scope=pl.lit(scope),
        subject=pl.lit(subject),
        unit=pl.lit(unit),
        value=pl.col("value").fill_nan(None),
        completeness=pl.lit(1.0),
        state=pl.lit("measured"),
    )


def material(made: datetime = ISSUED) -> Material:
    hours = np.arange(840)
    gap = 3e6 * cycle(hours, 3)
    gap[700:720] = np.nan
    demand = pl.concat(
        [
            rows("output_tokens", "network", "", "{token}/h", 5e9 * cycle(hours, 1)),
            rows("utility_power", "site", "guian-1", "W", 4e8 * cycle(hours, 2)),
            rows("it_power", "site", "<lab> & co", "W", gap),
            rows("it_power", "site", "new-1", "W", np.full(30, 1e6)),
        ]
    )
    said = issue(demand, ISSUED, made)
    feeds = [
        ("guian-1", "utility_feed", "utility_power", 1.0, 4.5e8),
        ("qingpu-1", "utility_feed", "utility_power", 1.0, 1e8),
    ]
    capacity = capacity_outlook(
        pl.DataFrame(feeds, schema=CAPACITIES, orient="row"), demand, said.forecasts, said.scores, ISSUED, made
    )
    return Material(ISSUED, made, demand, said.forecasts, said.scores, capacity)


@pytest.fixture(scope="module")
def made() -> Material:
    return material()


@pytest.fixture(scope="module")
def html(made: Material) -> str:
    return render(made)


def figures(html: str) -> list[dict]:
    return [json.loads(unescape(found)) for found in re.findall(r'data-figure="([^"]*)"', html)]


def test_it_opens_offline(html: str):
    page = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r'(src|href)="', page)


def test_each_series_has_a_plot_with_its_past_band_and_baseline(html: str):
    drawn = figures(html)
    assert len(drawn) == 4
    names = {line["name"] for line in drawn[0]["data"]}
    assert {"measured", "P10", "P50", "P90"} <= names
    assert all(len(line["y"]) == 168 for line in drawn[0]["data"] if line["name"] in {"P10", "P50", "P90"})


def test_gaps_are_drawn_as_gaps(html: str):
    measured = [figure["data"][0]["y"] for figure in figures(html)]
    assert any(None in values for values in measured)
    assert not any(value == 0 for values in measured for value in values)


def test_what_stands_beside_every_plot(html: str):
    for word in ("skill 24 h", "coverage 168 h", "completeness", "unit", "WQL 24 h"):
        assert html.count(word) >= 3, word
    assert "30 hours are known: at least 120 are needed" in html
    assert "1 series could not be forecast" in html


def test_headroom_names_the_hour_in_which_it_runs_out(html: str, made: Material):
    row = made.capacity.filter(pl.col("site") == "guian-1").row(0, named=True)
    assert f"{row['first_hour_p90']:%a %d %b %H:%M}" in html
    assert "450 MW" in html
    assert "1 site of the catalogue without a power reading" in html


def test_names_from_events_cannot_become_markup(html: str):
    assert "<lab>" not in html
    assert "&lt;lab&gt; &amp; co" in html


def test_old_data_is_called_old():
    page = render(material(ISSUED + timedelta(days=400)))
    assert "The data ends 2026-03-10 15:00 UTC, 400 days before this was computed" in page


def test_the_summary_has_a_row_for_each_series_forecast(made: Material):
    said = summary(made)
    assert said.count("| 168 h |") == 3
    assert "| guian-1 | Utility feed |" in said


def test_a_report_is_written_whole_and_old_ones_go(tmp_path: Path):
    for day in range(KEPT + 3):
        file = write(f"page {day}", tmp_path, ISSUED + timedelta(days=day))
        os.utime(file, (day, day))
    assert file.read_text() == f"page {KEPT + 2}"
    assert len(list(tmp_path.iterdir())) == KEPT
    again = write("newer", tmp_path, ISSUED + timedelta(days=KEPT + 2))
    assert again == file
    assert file.read_text() == "newer"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "—"),
        (float("nan"), "—"),
        (0.0, "0 W"),
        (999.6, "1 kW"),
        (1.254e9, "1.25 GW"),
        (-4.5e6, "-4.5 MW"),
        (2.5e15, "2500 TW"),
        (999_900, "1 MW"),
    ],
)
def test_quantities_are_read_at_a_glance(value, said):
    assert quantity(value, "W") == said
