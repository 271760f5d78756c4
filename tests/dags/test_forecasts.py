"""What is issued: the tables' columns, the baseline beside the model, words where nothing is said."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from dags.capacity import CAPACITIES, OUTLOOK, capacities, capacity_outlook
from dags.clickhouse import Warehouse
from dags.forecasts import FORECASTS, SCORES, Issue, issue, read_issue
from schemas import catalog
from tests.dags.synthetic_network import cycle

ISSUED = datetime(2026, 3, 10, 15, tzinfo=UTC)


def demand_rows(metric: str, subject: str, values: np.ndarray, unit: str = "W") -> pl.DataFrame:
    start = ISSUED - timedelta(hours=values.size)
    return pl.DataFrame(
        {
            "hour": [start + timedelta(hours=n) for n in range(values.size)],
            "metric": metric,
            "scope": "site",
            "subject": subject,
            "unit": unit,
            "value": values,
            "completeness": 1.0,
            "state": "measured",
        }
    ).with_columns(pl.col("hour").cast(pl.Datetime("ms", "UTC")), pl.col("value").fill_nan(None))


GROWING = 1e8 * cycle(np.arange(840), 1) * np.linspace(1, 1.2, 840)
DEMAND = pl.concat(
    [
        demand_rows("utility_power", "guian-1", GROWING),
        demand_rows("it_power", "guian-1", GROWING / 1.2),
        demand_rows("it_power", "qingpu-1", GROWING / 10),
        demand_rows("it_power", "lab", np.full(30, 5.0)),
    ]
)


@pytest.fixture(scope="module")
def issued() -> Issue:
    return issue(DEMAND, ISSUED, datetime.now(UTC).replace(microsecond=0))  # made long ago, its rows would expire


def test_every_forecast_has_its_score_and_its_baseline(issued: Issue):
    models = issued.forecasts.group_by("metric", "subject").agg(pl.col("model").unique().sort(), pl.col("chosen").sum())
    assert models.height == 3
    for row in models.iter_rows(named=True):
        scores = issued.scores.filter(pl.col("metric") == row["metric"], pl.col("subject") == row["subject"])
        assert scores["model"].unique().sort().to_list() == row["model"]
        assert scores["baseline"][0] in row["model"]
        assert row["chosen"] == 168, "one model is chosen, for all hours"
    assert issued.scores.filter("chosen")["coverage"].is_between(0.1, 0.99).all()


def test_quantiles_are_ordered_and_apart(issued: Issue):
    frame = issued.forecasts
    assert (frame["p10"] <= frame["p50"]).all()
    assert (frame["p50"] <= frame["p90"]).all()
    assert (frame["p10"] < frame["p90"]).all()


def test_the_first_hour_forecast_is_the_one_after_the_data(issued: Issue):
    assert issued.forecasts["hour"].min() == ISSUED
    assert issued.forecasts.filter(pl.col("hour") == ISSUED)["ahead_hours"].unique().to_list() == [1]
    assert issued.forecasts["hour"].max() == ISSUED + timedelta(hours=167)


def test_a_series_that_is_too_short_is_not_forecast_and_says_why(issued: Issue):
    assert issued.forecasts.filter(pl.col("subject") == "lab").is_empty()
    row = issued.scores.filter(pl.col("subject") == "lab").row(0, named=True)
    assert row["model"] == ""
    assert "30 hours are known: at least 120 are needed" in row["note"]


def test_no_demand_at_all_is_no_error():
    nothing = issue(DEMAND.clear(), ISSUED, ISSUED)
    assert nothing.forecasts.schema == FORECASTS
    assert nothing.scores.schema == SCORES


def test_what_is_stored_is_what_was_issued(issued: Issue, warehouse: Warehouse):
    for table, schema, frame in (
        ("forecasts", FORECASTS, issued.forecasts),
        ("forecast_scores", SCORES, issued.scores),
    ):
        warehouse.replace_issue(table, ISSUED, frame)
        back = read_issue(warehouse, table, schema, ISSUED)
        assert back.sort(pl.all()).equals(frame.sort(pl.all()))


def outlook_of(issued: Issue, **capacity: float) -> dict[str, dict]:
    """Of guian-1's feed (and qingpu-1's by its IT power times 1.25), with these capacities."""
    rows = [
        ("guian-1", "utility_feed", "utility_power", 1.0, capacity.get("guian", 1e9)),
        ("guian-1", "utility_feed", "it_power_times_pue", 1.2, capacity.get("guian", 1e9)),
        ("qingpu-1", "utility_feed", "utility_power", 1.0, 1e9),
        ("qingpu-1", "utility_feed", "it_power_times_pue", 1.25, 1e9),
        ("horinger-1", "utility_feed", "utility_power", 1.0, 1e9),
    ]
    frame = pl.DataFrame(rows, schema=CAPACITIES, orient="row")
    made = capacity_outlook(frame, DEMAND, issued.forecasts, issued.scores, ISSUED, ISSUED)
    assert made.schema == OUTLOOK
    return {row["site"]: row for row in made.iter_rows(named=True)}


def test_headroom_is_capacity_less_the_last_measured_hour(issued: Issue):
    row = outlook_of(issued)["guian-1"]
    assert row["basis"] == "utility_power"
    assert row["used"] == pytest.approx(GROWING[-1])
    assert row["headroom"] == pytest.approx(1e9 - GROWING[-1])
    assert row["headroom_share"] == pytest.approx(1 - GROWING[-1] / 1e9)
    assert row["first_hour_p50"] is None
    assert row["used_hour"] == ISSUED - timedelta(hours=1)


def test_a_feed_without_a_meter_is_judged_by_it_power_times_pue(issued: Issue):
    row = outlook_of(issued)["qingpu-1"]
    assert row["basis"] == "it_power_times_pue"
    assert row["used"] == pytest.approx(GROWING[-1] / 10 * 1.25)


def test_p90_runs_out_no_later_than_p50(issued: Issue):
    path = issued.forecasts.filter("chosen", pl.col("metric") == "utility_power")
    limit = float(path["p50"].quantile(0.9) or 0)
    row = outlook_of(issued, guian=limit)["guian-1"]
    assert ISSUED <= row["first_hour_p90"] <= row["first_hour_p50"]
    first = path.filter(pl.col("p50") > limit).sort("hour")["hour"][0]
    assert row["first_hour_p50"] == first


def test_a_site_that_nobody_measured_has_no_headroom_rather_than_all_of_it(issued: Issue):
    row = outlook_of(issued)["horinger-1"]
    assert row["used"] is None
    assert row["headroom"] is None
    assert row["horizon_hours"] == 0
    assert row["note"]


def test_a_capacity_event_counts_more_than_the_catalogue_once_it_is_in_force(client, warehouse: Warehouse):
    names = ["time", "source", "id", "site", "resource", "amount", "status", "effective"]
    for number, (amount, status, effective) in enumerate(
        [(5, "actual", -9), (7, "actual", -1), (8, "planned", -1), (9, "actual", 1)]
    ):
        at = ISSUED + timedelta(days=effective)
        row = [at, "test", str(number), "guian-1", "utility_feed", amount, status, at]
        client.insert("capacity", [row], column_names=names)
    feeds = capacities(warehouse, ISSUED).filter(pl.col("basis") == "utility_power")
    assert feeds.filter(pl.col("site") == "guian-1")["capacity"].item() == 7
    assert feeds.height == catalog.sites().height
