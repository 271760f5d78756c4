"""What is told of runs: the one in the middle, ratios of what counts, and the document that machines read."""

import pytest

from pipelines.bench.measure import AtLoad, FullSpeed
from pipelines.bench.report import Report
from pipelines.bench.run import chosen
from pipelines.bench.variants import RATIOS, VARIANTS
from schemas.errors import UsageError

FIGURES = {"events_per_s", "cpu_s_per_million", "peak_mb", "freshness_p50_s", "freshness_p99_s", "totals_ok"}


def speed(events_per_s: float, cpu: float = 4.0) -> FullSpeed:
    return FullSpeed(events_per_s, {"worker": cpu / 2, "broker": cpu / 4, "server": cpu / 4}, 1000.0)


def report() -> Report:
    found = Report(1000, 3)
    found.runs = {
        "wattstream-json": [speed(90), speed(110, 8), speed(100)],
        "ceiling-json": [speed(125)],
        "quix": [speed(20)],
        "bytewax": [speed(40)],
    }
    cpu = {"worker": 3.5, "broker": 9.0, "server": 1.0}  # the broker takes what is sent, too
    found.at_loads["wattstream-json"] = {30: AtLoad(30, cpu, 500, 0.7, 1.2), 70: AtLoad(70, cpu, 600, 0.8, 1.4)}
    return found


def test_the_median_run_counts_and_its_spread_is_told() -> None:
    document = report().document()
    told = document["variants"]["wattstream-json"]
    assert (told["events_per_s"], told["runs"], told["spread"]) == (100, [90, 110, 100], 0.2)


def test_the_document_has_what_was_promised_of_each_variant() -> None:
    variants = report().document()["variants"]
    assert all(figures.keys() >= FIGURES for figures in variants.values())
    assert variants["wattstream-json"]["freshness_p50_s"] == 0.7, "at 30 %"
    assert variants["quix"]["freshness_p50_s"] is None


def test_ratios_are_of_medians_and_against_the_better_peer() -> None:
    ratios = report().document()["ratios"]
    assert ratios["wattstream-json/ceiling-json"] == 0.8
    assert ratios["wattstream-json/best-peer"] == 2.5
    assert ratios["wattstream-json cpu/ceiling-json cpu"] == 1.0
    assert ratios["wattstream-json cpu at 30 %/wattstream-json cpu"] == 1.5


def test_what_failed_counts_nowhere() -> None:
    found = report()
    found.failed["bytewax"] = "its totals are off"
    document = found.document()
    assert document["variants"]["bytewax"] == dict.fromkeys(FIGURES) | {"totals_ok": False}
    assert document["ratios"]["wattstream-json/best-peer"] == 5.0
    assert "wattstream-json/bytewax" not in document["ratios"]


def test_every_ratio_is_of_variants_that_there_are() -> None:
    names = {variant.name for variant in VARIANTS} | {"best-peer"}
    assert {name for ratio in RATIOS for name in (ratio.over, ratio.under)} <= names
    assert len({ratio.name for ratio in RATIOS}) == len(RATIOS)


def test_factors_and_what_is_only_for_the_curious_are_measured_when_asked_for() -> None:
    main, with_factors = ({variant.name for variant in chosen([], factors)} for factors in (False, True))
    assert main < with_factors
    assert "wattstream-late" in with_factors - main
    assert [variant.name for variant in chosen(["ceiling-arrow-1500k"], factors=False)] == ["ceiling-arrow-1500k"]
    assert "ceiling-arrow-1500k" not in with_factors


def test_an_unknown_variant_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no variant quick;.*wattstream-json"):
        chosen(["quick"], factors=False)
