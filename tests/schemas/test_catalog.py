"""The catalogue holds together: references resolve, figures have their unit, nothing known is without a source."""

import math
from collections import defaultdict
from itertools import chain

import polars as pl
import pytest

from schemas import catalog

FRAMES = catalog.everything()


def test_the_catalogue_has_no_problem() -> None:
    assert catalog.problems(FRAMES) == []


@pytest.mark.parametrize("name", sorted(catalog.COLUMNS))
def test_a_frame_has_the_columns_that_are_documented(name: str) -> None:
    columns = catalog.COLUMNS[name]
    assert dict(FRAMES[name].schema) == {column.name: column.dtype() for column in columns}
    assert list(FRAMES[name].columns) == [column.name for column in columns]
    assert all(column.doc and (column.unit or not column.dtype.is_numeric()) for column in columns)
    assert FRAMES[name].height > 0


def test_all_eight_hubs_have_a_campus_and_there_are_twenty_edge_nodes() -> None:
    sites = FRAMES["sites"]
    assert set(sites.filter(kind="hub")["hub"]) == set(catalog.HUBS)
    assert len(catalog.HUBS) == 8
    assert sites.filter(kind="edge").height >= 20
    assert set(sites["kind"]) == {"hub", "edge"}


def test_every_site_is_in_china_and_every_hub_campus_stays_below_the_national_pue_limit() -> None:
    sites = FRAMES["sites"]
    assert sites["latitude"].is_between(18, 54).all()
    assert sites["longitude"].is_between(73, 135).all()
    assert (sites["pue_target"] > 1).all()
    assert (sites.filter(kind="hub")["pue_target"] < 1.25).all()
    assert sites["free_cooling_share"].is_between(0, 1).all()


def test_the_province_of_a_site_lies_in_its_region() -> None:
    provinces = dict(FRAMES["regions"].select("region", "provinces").rows())
    for site, region, province in FRAMES["sites"].select("site", "region", "province").rows():
        assert province in provinces[region].split(";"), site


def test_regions_add_up_to_the_census_and_the_east_demands_more_than_half() -> None:
    regions = FRAMES["regions"]
    # 1,409,778,724 residents of the 31 provinces: the census total without service members.
    assert regions["population"].sum() == 1_409_778_724
    provinces = list(chain.from_iterable(text.split(";") for text in regions["provinces"]))
    assert len(provinces) == len(set(provinces)) == 31
    assert regions["demand_share"].sum() == pytest.approx(1)
    assert regions.filter(area="east")["demand_share"].sum() > 0.5


def test_power_is_in_the_west_and_north() -> None:
    power = FRAMES["sites"].join(FRAMES["regions"].select("region", "area"), on="region")
    assert power.filter(area="west")["utility_capacity_watts"].sum() > 0.6 * power["utility_capacity_watts"].sum()


def test_every_figure_of_an_accelerator_has_one_source_and_every_sourced_figure_is_shown() -> None:
    shown = (
        FRAMES["accelerator_models"]
        .select("model", *catalog.FIGURES)
        .unpivot(index="model", variable_name="figure", value_name="value")
        .drop_nulls("value")
    )
    sourced = FRAMES["accelerator_figures"]
    assert sourced.filter((pl.col("source") == "") | ~pl.col("confidence").is_in(["vendor", "press"])).is_empty()
    assert sorted(shown.rows()) == sorted(sourced.select("model", "figure", "value").rows())


def test_an_accelerator_without_any_figure_is_of_unknown_confidence() -> None:
    models = FRAMES["accelerator_models"]
    bare = pl.all_horizontal(pl.col(name).is_null() for name in catalog.FIGURES)
    assert set(models.filter(bare)["confidence"]) <= {"unknown"}
    assert "unknown" not in set(models.filter(~bare)["confidence"])


def test_accelerators_come_from_four_vendors_at_least_and_figures_have_their_unit() -> None:
    models = FRAMES["accelerator_models"]
    assert models["vendor"].n_unique() >= 4
    assert models["memory_bytes"].drop_nulls().is_between(16 * 2**30, 2**40).all()
    assert models["memory_bandwidth_bytes_per_second"].drop_nulls().is_between(1e11, 2e13).all()
    assert models["tdp_watts"].drop_nulls().is_between(50, 2000).all()


@pytest.mark.parametrize(
    ("model", "figure", "value"),
    [
        ("H100 SXM", "tdp_watts", 700),
        ("H100 SXM", "fp16_tflops", 989.4),
        ("A100 SXM 80GB", "memory_bandwidth_bytes_per_second", 2.039e12),
        ("MLU370-X8", "int8_tops", 256),
        ("Ascend 910", "fp16_tflops", 256),
        ("A40", "memory_bytes", 48 * 2**30),
    ],
)
def test_a_known_figure_is_as_published(model: str, figure: str, value: float) -> None:
    assert FRAMES["accelerator_models"].row(by_predicate=pl.col("model") == model, named=True)[figure] == value


def test_lower_precision_is_never_slower() -> None:
    models = FRAMES["accelerator_models"]
    for slower, faster in (("fp64", "fp32"), ("fp32", "fp16"), ("tf32", "fp16"), ("fp16", "fp8")):
        both = models.drop_nulls([f"{slower}_tflops", f"{faster}_tflops"])
        assert (both[f"{slower}_tflops"] <= both[f"{faster}_tflops"]).all(), (slower, faster)


def test_the_gateway_has_three_hundred_models_of_the_named_families() -> None:
    models = FRAMES["gateway_models"]
    assert models.height >= 300
    assert {"Jiutian", "DeepSeek", "Qwen", "Doubao", "Kimi", "GLM", "ERNIE", "Hunyuan"} <= set(models["family"])
    assert (models["model"].str.to_lowercase() == models["model"]).all()
    assert (models["demand_weight"] > 0).all()


def test_a_model_never_activates_more_parameters_than_it_has() -> None:
    sparse = FRAMES["gateway_models"].drop_nulls("active_parameters_billions")
    assert (sparse["active_parameters_billions"] < sparse["parameters_billions"]).all()


def test_a_link_is_as_long_as_its_route_and_as_slow_as_light_in_fibre() -> None:
    places = {site: (lat, lon) for site, lat, lon in FRAMES["sites"].select("site", "latitude", "longitude").rows()}
    for row in FRAMES["links"].iter_rows(named=True):
        straight = _spherical_law_of_cosines(*places[row["a_site"]], *places[row["z_site"]])
        assert row["length_metres"] == pytest.approx(straight * row["route_factor"], rel=1e-6)
        assert row["latency_seconds"] == pytest.approx(row["length_metres"] * 4.9e-9, rel=1e-3)
        assert row["route_factor"] >= 1
        assert row["a_site"] != row["z_site"]
        assert row["capacity_bits_per_second"] >= 100_000_000_000


def test_every_site_reaches_every_other_over_the_links() -> None:
    near: defaultdict[str, set[str]] = defaultdict(set)
    for a_site, z_site in FRAMES["links"].select("a_site", "z_site").rows():
        near[a_site].add(z_site)
        near[z_site].add(a_site)
    reached, waiting = set[str](), ["zhongwei-1"]
    while waiting:
        site = waiting.pop()
        reached.add(site)
        waiting.extend(near[site] - reached)
    assert reached == set(FRAMES["sites"]["site"])


def test_every_site_has_accelerators_and_a_node_has_power_for_what_is_in_it() -> None:
    fleet = FRAMES["fleet"]
    assert set(fleet["site"]) == set(FRAMES["sites"]["site"])
    known = fleet.join(FRAMES["accelerator_models"].drop_nulls("tdp_watts"), on="model")
    assert (known["node_watts"] >= known["accelerators_per_node"] * known["tdp_watts"]).all()
    assert (fleet["accelerators"] == fleet["nodes"] * fleet["accelerators_per_node"]).all()
    assert (fleet["racks"] * fleet["nodes_per_rack"] >= fleet["nodes"]).all()
    assert ((fleet["racks"] - 1) * fleet["nodes_per_rack"] < fleet["nodes"]).all()


def test_every_tenant_has_a_package_and_the_largest_is_a_million_million_tokens() -> None:
    packages = FRAMES["packages"]
    assert set(packages["tenant"]) == set(FRAMES["tenants"]["tenant"])
    assert packages["tokens"].max() == 10**12
    assert (packages["tokens"] > 0).all()
    assert (packages["validity_seconds"] > 0).all()


@pytest.mark.parametrize(
    ("name", "broken", "complaint"),
    [
        ("sites", lambda f: pl.concat([f, f.head(1)]), "more than once"),
        ("sites", lambda f: f.with_columns(hub=pl.lit("atlantis")), "no national hub"),
        ("sites", lambda f: f.with_columns(utility_capacity_watts=pl.lit(1)), "utility feed"),
        ("sites", lambda f: f.with_columns(name=pl.lit(None, pl.String)), "null"),
        ("links", lambda f: f.with_columns(z_site=pl.lit("nowhere-1")), "nowhere-1 is not in sites"),
        ("fleet", lambda f: f.with_columns(model=pl.lit("Abacus")), "Abacus is not in accelerator_models"),
        ("packages", lambda f: f.with_columns(tenant=pl.lit("nobody")), "nobody is not in tenants"),
    ],
)
def test_a_broken_catalogue_is_noticed(name: str, broken, complaint: str) -> None:
    assert any(complaint in problem for problem in catalog.problems(FRAMES | {name: broken(FRAMES[name])}))


def _spherical_law_of_cosines(a_lat: float, a_lon: float, z_lat: float, z_lon: float) -> float:
    a, z, across = math.radians(a_lat), math.radians(z_lat), math.radians(z_lon - a_lon)
    return 6_371_008.8 * math.acos(math.sin(a) * math.sin(z) + math.cos(a) * math.cos(z) * math.cos(across))
