"""What the simulated network must keep to, whatever its numbers: determinism, sums that agree, valid events."""

from datetime import UTC, datetime
from functools import cache

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipelines.feed.assets import capacity_events, emitters
from pipelines.feed.demand import Demand
from pipelines.feed.faults import meter_faults, silent
from pipelines.feed.history import DAY, SECOND, history
from pipelines.feed.live import WINDOW, Batch, Live
from pipelines.feed.plant import Plant
from schemas import catalog
from schemas.envelope import complete
from schemas.events import CAPACITY, LINKS, PACKAGES, POWER, TOKENS, UTILIZATION, EventType
from schemas.identity import with_identity

START = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp()) * SECOND
DAY_OF_HOURS = np.arange(START, START + DAY, 3600 * SECOND, dtype=np.int64)


@cache
def plant() -> Plant:
    return Plant(7)


@cache
def demand() -> Demand:
    return Demand(7, START)


def events(batches: list[Batch], event_type: EventType) -> pl.DataFrame:
    frames = [complete(event_type, batch.frame) for batch in batches if batch.event_type is event_type]
    return pl.concat(frames) if frames else pl.DataFrame(schema=event_type.frame_schema)


def refused(event_type: EventType, frame: pl.DataFrame) -> pl.DataFrame:
    frame = frame.with_columns(arrived=pl.col("time").cast(pl.Datetime("ms", "UTC")))
    return frame.filter(pl.any_horizontal(rule.fill_null(False) for _, rule in event_type.impossible))


@cache
def one_day() -> list[Batch]:
    return [batch for _, batches in history(plant(), demand(), START, START + DAY, 900) for batch in batches]


def windows(rate: float, seconds: float) -> list[Batch]:
    live = Live(plant(), demand(), rate)
    first = START // WINDOW
    return [batch for w in range(first, first + int(seconds * SECOND / WINDOW)) for batch in live.batches(w)]


def test_counters_never_fall_and_agree_with_the_power() -> None:
    times = np.arange(START, START + DAY, 60 * SECOND, dtype=np.int64)
    thermal = (plant().meters["role"] == "ambient").to_numpy()
    watts, joules = plant().watts(times)[:, ~thermal], plant().joules(times)[:, ~thermal]
    used = np.diff(joules, axis=0)
    assert (used >= 0).all()
    assert (joules >= 0).all()
    assert joules.max() < 1e18
    mean = ((watts[1:] + watts[:-1]) / 2).sum(axis=0)
    assert used.sum(axis=0) / 60 == pytest.approx(mean, rel=0.01)


def test_a_site_draws_what_its_parts_and_cooling_draw_less_what_it_makes() -> None:
    read = plant().meters.with_columns(watts=pl.Series(plant().watts(DAY_OF_HOURS).mean(axis=0)))
    by_role = read.group_by("site", "role").agg(pl.col("watts").sum()).pivot("role", index="site", values="watts")
    by_role = by_role.with_columns(pl.col("generation").fill_null(0.0))
    assert by_role["it"].to_numpy() == pytest.approx(1.06 * by_role["node"].to_numpy(), rel=1e-6)
    drawn = 1.03 * by_role["it"] + by_role["cooling"] - by_role["generation"]
    assert by_role["utility"].to_numpy() == pytest.approx(drawn.to_numpy(), rel=1e-6)
    pue = ((by_role["utility"] + by_role["generation"]) / by_role["it"]).alias("pue")
    held = by_role.with_columns(pue).join(catalog.sites(), on="site")
    assert (held["pue"] - held["pue_target"]).abs().max() < 0.06
    assert (held["utility"] < held["utility_capacity_watts"]).all()


def test_power_is_in_the_west_and_demand_in_the_east() -> None:
    sites = catalog.sites().join(catalog.regions().select("region", "area"), on="region")
    drawn = plant().meters.with_columns(watts=pl.Series(plant().watts(DAY_OF_HOURS).mean(axis=0)))
    by_area = drawn.filter(pl.col("role") == "it").join(sites, on="site").group_by("area").agg(pl.col("watts").sum())
    watts = dict(by_area.iter_rows())
    rate = demand().rate(DAY_OF_HOURS).mean(axis=0)
    asked = dict(
        catalog.regions().with_columns(rate=pl.Series(rate)).group_by("area").agg(pl.col("rate").sum()).iter_rows()
    )
    assert watts["west"] > 0.5 * sum(watts.values())
    assert asked["east"] > 0.5 * sum(asked.values())


def test_history_is_the_same_however_it_is_cut() -> None:
    middle = START + 7 * 3600 * SECOND
    cut = [b for _, batches in history(plant(), demand(), START, middle, 900) for b in batches]
    cut += [b for _, batches in history(plant(), demand(), middle, START + DAY, 900) for b in batches]
    for event_type in (POWER, UTILIZATION, TOKENS, LINKS, PACKAGES):
        by = list(event_type.identity)
        assert_frame_equal(events(one_day(), event_type).sort(by), events(cut, event_type).sort(by))


def test_live_windows_are_the_same_when_asked_again_and_differ_by_seed() -> None:
    live = Live(plant(), demand(), 500)
    window = START // WINDOW + 17
    again = Live(Plant(7), Demand(7, START), 500)
    other = Live(Plant(8), Demand(8, START), 500)
    for first, second in zip(live.batches(window), again.batches(window), strict=True):
        assert_frame_equal(first.frame, second.frame)
    tokens = events(live.batches(window), TOKENS)
    assert not tokens.equals(events(other.batches(window), TOKENS))


@pytest.mark.parametrize("rate", [30, 200, 2000, 20_000])
def test_the_rate_is_kept_and_every_topic_has_a_share(rate: float) -> None:
    seconds = 10 if rate > 1000 else 60  # whole intervals of the meters
    sent = windows(rate, seconds)
    packages = events(sent, PACKAGES).height  # all are granted in the first window
    total = sum(batch.frame.height for batch in sent) - packages
    assert total / seconds == pytest.approx(rate, rel=0.06)
    for event_type in (POWER, UTILIZATION, TOKENS, LINKS):
        assert events(sent, event_type).height > 0
    encodings = {batch.encoding for batch in sent}
    assert {"arrow", "json"} <= encodings
    assert ("array" in encodings) == (rate >= 2000)


def test_a_rate_of_zero_is_silence() -> None:
    assert windows(0, 5) == []


def test_each_meter_reports_once_an_interval() -> None:
    live = Live(plant(), demand(), 200)
    assert live.interval_seconds == 10
    power = events(windows(200, 30), POWER)
    readings = power.unique(list(POWER.identity)).group_by("site", "node", "meter").len()
    assert readings["len"].max() == 3


def test_events_are_valid_but_for_broken_meters() -> None:
    for event_type in (UTILIZATION, TOKENS, LINKS, PACKAGES):
        assert refused(event_type, events(one_day(), event_type)).is_empty()
        assert refused(event_type, events(windows(2000, 5), event_type)).is_empty()
    assert refused(CAPACITY, complete(CAPACITY, capacity_events(plant(), START))).is_empty()
    power = events(one_day(), POWER)
    broken = refused(POWER, power)
    assert 0 < broken.height < 0.01 * power.height
    assert broken.filter(pl.col("watts").is_not_nan() & pl.col("temperature_celsius").is_null()).is_empty()


def test_identities_are_unique_in_history_and_live() -> None:
    for event_type in (POWER, UTILIZATION, TOKENS, LINKS, PACKAGES):
        frame = with_identity(event_type, events(one_day(), event_type))
        assert frame.select(pl.struct("identity_hi", "identity_lo").n_unique()).item() == frame.height
    tokens = events([b for b in windows(5000, 10) if not b.wait_seconds], TOKENS)
    assert tokens["source"].n_unique() > 10
    duplicated = tokens.height - tokens.select(pl.struct("source", "id").n_unique()).item()
    assert duplicated < 0.1 * tokens.height  # only what is sent twice on purpose


def test_totals_go_on_smoothly_from_history_to_live_at_any_rate() -> None:
    def tokens_per_second(frame: pl.DataFrame, seconds: float) -> float:
        return (frame["input_tokens"].sum() + frame["output_tokens"].sum()) / seconds

    def unique(rate: float, seconds: float) -> pl.DataFrame:
        return events(windows(rate, seconds), TOKENS).unique(["source", "id"])

    hour = [b for _, batches in history(plant(), demand(), START, START + 3600 * SECOND, 900) for b in batches]
    past = tokens_per_second(events(hour, TOKENS), 3600)
    assert tokens_per_second(unique(200, 120), 120) == pytest.approx(past, rel=0.1)
    assert tokens_per_second(unique(10_000, 5), 5) == pytest.approx(past, rel=0.1)


def test_a_package_is_topped_up_before_it_is_used_up_or_used_no_more() -> None:
    days = 40
    used = demand()
    ledger = used.ledger(START, START + days * DAY)
    granted = ledger.filter(pl.col("entry") == "granted")
    assert granted.height == catalog.packages().height
    assert (granted["effective"].dt.epoch("ns") == START).all()
    assert ledger.height > granted.height
    assert ledger["id"].n_unique() == ledger.height
    assert (ledger["expiry"] > ledger["effective"]).all()
    by_day = [used.ledger(START + n * DAY, START + (n + 1) * DAY) for n in range(days)]
    cut = pl.concat(day for day in by_day if day.height)
    assert_frame_equal(cut.sort("id"), ledger.sort("id"))
    steps = np.arange(START, START + days * DAY, 3600 * SECOND, dtype=np.int64)
    usage = used.history(steps, steps + 3600 * SECOND).filter(pl.col("package") != "")
    burnt = usage.group_by("package").agg(used=pl.col("input_tokens").sum() + pl.col("output_tokens").sum())
    balance = ledger.group_by("package").agg(pl.col("tokens").sum()).join(burnt, on="package")
    covered = balance.filter(pl.col("used") <= 1.1 * pl.col("tokens"))
    assert covered.height == balance.height


def test_faults_come_now_and_then_and_end() -> None:
    times = np.arange(START, START + 7 * DAY, 300 * SECOND, dtype=np.int64)
    quiet = silent(plant(), times)
    assert 0 < quiet.mean() < 0.01
    assert not quiet.all(axis=0).any()
    due = np.ones((len(times), plant().meters.height), dtype=np.bool_)
    made, watts = meter_faults(plant(), times, due)
    assert 0 < (~made).mean() < 0.01
    assert 0 < np.isnan(watts).mean() < 0.01
    repeats = (np.diff(watts, axis=0) == 0).mean()
    assert 0 < repeats < 0.01


def test_late_and_repeated_batches_occur_and_lose_nothing() -> None:
    sent = windows(200, 200)
    late = [batch for batch in sent if batch.wait_seconds]
    assert late
    assert all(60 <= batch.wait_seconds <= 600 for batch in late)
    repeated = 0
    for event_type in (POWER, UTILIZATION, TOKENS):
        frame = events(sent, event_type)
        repeated += frame.height - frame.select(pl.struct(event_type.identity).n_unique()).item()
    assert 0 < repeated < 0.02 * sum(batch.frame.height for batch in sent)


def test_every_emitter_is_registered_under_the_name_it_sends() -> None:
    expected = emitters(plant(), 10, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    assert expected.select(pl.struct("topic", "site", "node", "emitter").n_unique()).item() == expected.height
    power = events(one_day(), POWER).select("site", "node", emitter="meter").unique()
    use = events(one_day(), UTILIZATION).select("site", "node", emitter="device").unique()
    links = events(one_day(), LINKS).select(site="a_site", node=pl.lit(""), emitter="link").unique()
    for topic, sent in (("power", power), ("utilization", use), ("links", links)):
        registered = expected.filter(pl.col("topic") == topic)
        key = ["site", "node", "emitter"]
        assert sent.join(registered, on=key, how="anti").is_empty()
        assert registered.join(sent, on=key, how="anti").is_empty()


def test_a_gap_that_is_filled_makes_no_minute_a_spike() -> None:
    begin, end = START + 3600 * SECOND + 24_250_000_000, START + 5400 * SECOND + 37_500_000_000
    batches = [b for _, found in history(plant(), demand(), begin, end, 900, fine=START) for b in found]
    usage = events(batches, TOKENS).group_by(pl.col("time").dt.truncate("1m").dt.epoch("s").alias("minute"))
    tokens = usage.agg((pl.col("input_tokens") + pl.col("output_tokens")).sum().alias("tokens")).sort("minute")
    starts = tokens["minute"].to_numpy() * SECOND
    seconds = (np.minimum(starts + 60 * SECOND, end) - np.maximum(starts, begin)) / SECOND
    rate = tokens["tokens"].to_numpy() / seconds
    assert rate.max() / rate.min() < 1.3


def test_history_ends_where_live_begins() -> None:
    """A first or last step may be short: its usage is in proportion, its samples stay on the grid."""
    begin, end = START + 100 * SECOND, START + 2000 * SECOND
    ((upto, batches),) = history(plant(), demand(), begin, end, 900)
    assert upto == end
    tokens = events(batches, TOKENS)
    times = tokens["time"].dt.epoch("ns")
    assert begin <= times.min() <= times.max() < end  # type: ignore[operator]
    assert set(times // (900 * SECOND)) == {START // (900 * SECOND) + step for step in range(3)}
    power = events(batches, POWER)
    assert set(power["time"].dt.epoch("s")) == {START // SECOND + s for s in (900, 1800)}


def test_usage_told_in_coarse_steps_is_even_in_buckets_that_are_no_multiple_of_them() -> None:
    batches = [b for _, found in history(plant(), demand(), START, START + 7200 * SECOND, 900) for b in found]
    buckets = events(batches, TOKENS).group_by(pl.col("time").dt.truncate("10m")).agg(pl.col("requests").sum())
    assert buckets.height == 12
    assert buckets["requests"].max() < 2 * buckets["requests"].min()  # type: ignore[operator]
