"""The reference catalogue: sites, regions, links, accelerators, models, tenants and packages, as Polars frames.

What is real: the eight national hubs and their clusters, the regions with population and GDP, the accelerators' figures
(each with its source) and the names of the gateway's models. What is synthetic: the network built on them, so the
campuses' megawatts, the edge nodes, the fleet, the links' capacities, tenants, packages and every ``demand_weight``.

Each function returns one frame, read once from ``schemas/data``; ``COLUMNS`` says what its columns mean, in which unit.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import polars as pl

SPEED_OF_LIGHT = 299_792_458.0
"""m/s, exact by definition."""

GROUP_INDEX = 1.468
"""Of single-mode fibre at 1550 nm (ITU-T G.652 class; Corning SMF-28 Ultra product information: 1.4682)."""

EARTH_RADIUS = 6_371_008.8
"""m, the mean radius R1 of the IUGG."""

SECONDS_PER_METRE = GROUP_INDEX / SPEED_OF_LIGHT
"""One way in fibre: 4.897e-9 s/m, so 4.9 ms for 1000 km."""

HUBS = (
    "beijing-tianjin-hebei",
    "yangtze-river-delta",
    "guangdong-hong-kong-macao",
    "chengdu-chongqing",
    "inner-mongolia",
    "guizhou",
    "gansu",
    "ningxia",
)
"""The eight hub nodes of the national computing network (NDRC and others, approved in 2021 and 2022)."""

FIGURES = (
    "memory_bytes",
    "memory_bandwidth_bytes_per_second",
    "tdp_watts",
    "fp64_tflops",
    "fp32_tflops",
    "tf32_tflops",
    "fp16_tflops",
    "bf16_tflops",
    "fp8_tflops",
    "int8_tops",
)
"""What an accelerator model is described by; every one that is not null has a source in ``accelerator_figures``."""

CONFIDENCE = ("vendor", "press", "unknown")
"""How well a figure is founded: the vendor's document, others' reports, or not known (then it is null)."""


@dataclass(frozen=True)
class Column:
    """One column of a frame: an empty unit means text or a flag; ``required`` means never null."""

    name: str
    dtype: type[pl.DataType]
    unit: str
    doc: str
    required: bool = True


def _text(name: str, doc: str) -> Column:
    return Column(name, pl.String, "", doc)


def _integer(name: str, unit: str, doc: str, *, required: bool = True) -> Column:
    return Column(name, pl.Int64, unit, doc, required)


def _real(name: str, unit: str, doc: str, *, required: bool = True) -> Column:
    return Column(name, pl.Float64, unit, doc, required)


_FIGURE_COLUMNS = (
    _integer("memory_bytes", "By", "Device memory; a marketed GB is taken as 2^30 bytes.", required=False),
    _real("memory_bandwidth_bytes_per_second", "By/s", "Peak memory bandwidth.", required=False),
    _real("tdp_watts", "W", "Maximum board or module power.", required=False),
    _real("fp64_tflops", "TFLOP/s", "Peak dense 64-bit floating point, vector units.", required=False),
    _real("fp32_tflops", "TFLOP/s", "Peak dense 32-bit floating point, vector units.", required=False),
    _real("tf32_tflops", "TFLOP/s", "Peak dense TF32 in matrix units, without sparsity.", required=False),
    _real("fp16_tflops", "TFLOP/s", "Peak dense FP16 in matrix units, without sparsity.", required=False),
    _real("bf16_tflops", "TFLOP/s", "Peak dense BF16 in matrix units, without sparsity.", required=False),
    _real("fp8_tflops", "TFLOP/s", "Peak dense FP8 in matrix units, without sparsity.", required=False),
    _real("int8_tops", "TOP/s", "Peak dense INT8, without sparsity.", required=False),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "sites": (
        _text("site", "The campus or edge node."),
        _text("kind", "hub (a campus in a national cluster) or edge (at a base station)."),
        _text("name", "Display name, English."),
        _text("name_zh", "Display name, Chinese."),
        _text("hub", "The national hub it belongs to; of an edge node the one that its traffic goes to."),
        _text("cluster", "The national data-centre cluster of a hub campus; empty for an edge node."),
        _text("region", "The demand region it lies in."),
        _text("province", "The province, English."),
        _text("time_zone", "IANA name."),
        _real("latitude", "deg", "WGS 84, of the place, not of a building."),
        _real("longitude", "deg", "WGS 84."),
        _integer("utility_capacity_watts", "W", "What the utility feed can give (synthetic)."),
        _real("pue_target", "1", "Facility energy ÷ IT energy that it is planned for."),
        _real("free_cooling_share", "1", "Share of the year cooled without compressors (synthetic, by climate)."),
    ),
    "regions": (
        _text("region", "The demand region: a province of the east, or several of the rest."),
        _text("name", "Display name, English."),
        _text("name_zh", "Display name, Chinese."),
        _text("area", "east, central, west or northeast, as the statistics bureau groups provinces."),
        _text("provinces", "Its provinces, joined by ';'."),
        _text("time_zone", "IANA name."),
        _real("latitude", "deg", "Of its largest city, WGS 84."),
        _real("longitude", "deg", "Of its largest city, WGS 84."),
        _integer("population", "{person}", "Seventh National Population Census, 1 November 2020: usual residents."),
        _real("gdp_yuan", "CNY", "GDP of 2023, as the provinces first published it."),
        _real("demand_share", "1", "Share of the token demand, taken as the share of GDP; sums to 1."),
    ),
    "accelerator_models": (
        _text("model", "The accelerator model."),
        _text("vendor", "Who made it."),
        _text("form", "module (OAM, SXM) or card (PCIe)."),
        _text("memory_type", "HBM2e, GDDR6, …; empty where unknown."),
        *_FIGURE_COLUMNS,
        _text("confidence", "The weakest confidence of its figures: vendor or press; unknown without any figure."),
        _text("source", "Which figure is from which document; none was published for the rest."),
    ),
    "accelerator_figures": (
        _text("model", "The accelerator model."),
        _text("figure", "The column of accelerator_models."),
        _real("value", "by figure", "The figure."),
        _text("confidence", "vendor (own document) or press (others' reports)."),
        _text("source", "Title of the document."),
    ),
    "gateway_models": (
        _text("model", "The model's name in a request (gen_ai.request.model)."),
        _text("name", "Display name."),
        _text("family", "Jiutian, DeepSeek, Qwen, …"),
        _text("provider", "Who makes it (gen_ai.provider.name)."),
        _text("kind", "chat, reasoning, vision, code, embedding, rerank, image, video, audio, math or translation."),
        _real("parameters_billions", "10^9", "All parameters; null where not public.", required=False),
        _real("active_parameters_billions", "10^9", "Used for one token; null if not public.", required=False),
        _integer("context_tokens", "{token}", "Longest context; null where not public.", required=False),
        Column("open_weights", pl.Boolean, "", "Whether its weights can be downloaded."),
        _real("demand_weight", "1", "Relative demand in the simulator (synthetic)."),
    ),
    "links": (
        _text("link", "The optical link."),
        _text("kind", "backbone (campus to campus) or access (campus to edge)."),
        _text("a_site", "One end."),
        _text("z_site", "The other end."),
        _integer(
            "capacity_bits_per_second",
            "bit/s",
            "Each way (synthetic): 96 waves of 400 or 100 Gbit/s between campuses, 1 or 2 of 400 Gbit/s to an edge.",
        ),
        _real(
            "route_factor",
            "1",
            "Fibre length ÷ great circle (synthetic): 1.15 within a hub, 1.35 between hubs, 1.5 to an edge node.",
        ),
        _real("length_metres", "m", "Great circle between the sites × route_factor."),
        _real("latency_seconds", "s", "Propagation one way: length × 1.468 ÷ c."),
    ),
    "fleet": (
        _text("site", "The campus or edge node."),
        _text("model", "The accelerator model."),
        _text("vendor", "Who made it."),
        _integer("accelerators", "{device}", "nodes × accelerators_per_node."),
        _integer("nodes", "{node}", "Servers (synthetic)."),
        _integer("accelerators_per_node", "{device}", "Accelerators in a server."),
        _integer("racks", "{rack}", "nodes ÷ nodes_per_rack, rounded up."),
        _integer("nodes_per_rack", "{node}", "Servers in a rack."),
        _real("node_watts", "W", "IT power of a server under full load, as planned for (synthetic)."),
        _real("rated_watts", "W", "IT power of them all: nodes × node_watts."),
    ),
    "tenants": (
        _text("tenant", "The customer (synthetic)."),
        _text("name", "Display name."),
        _text("sector", "finance, government, internet, …"),
        _text("region", "Where its demand comes from."),
        _real("demand_weight", "1", "Relative demand."),
    ),
    "packages": (
        _text("package", "The token package (synthetic)."),
        _text("tenant", "Who owns it."),
        _text("offer", "What was bought: trial, starter, team, business, enterprise or national."),
        _integer("tokens", "{token}", "Granted at rate 1, up to 10^12."),
        _integer("priority", "1", "Lower burns first."),
        _integer("validity_seconds", "s", "From its grant to its expiry."),
    ),
}
"""The columns of every frame, in order, by the name of the function that returns it."""


@cache
def sites() -> pl.DataFrame:
    """Hub campuses and edge nodes, one row a ``site``."""
    return _frame("sites", _csv("sites"))


@cache
def regions() -> pl.DataFrame:
    """Demand regions, one row a ``region``."""
    share = (pl.col("gdp_yuan") / pl.col("gdp_yuan").sum()).alias("demand_share")
    return _frame("regions", _csv("regions").with_columns(share))


@cache
def accelerator_figures() -> pl.DataFrame:
    """Every known figure of every accelerator model with its source, one row a (``model``, ``figure``)."""
    rows = [
        (model["model"], figure, float(value), document["confidence"], document["source"])
        for model in _accelerators()
        for document in model["documents"]
        for figure, value in document["figures"].items()
    ]
    schema = pl.Schema({column.name: column.dtype() for column in COLUMNS["accelerator_figures"]})
    return _frame("accelerator_figures", pl.DataFrame(rows, schema=schema, orient="row"))


@cache
def accelerator_models() -> pl.DataFrame:
    """Accelerator models, one row a ``model``; a figure that nobody published is null."""
    rows: list[dict[str, Any]] = []
    for model in _accelerators():
        row: dict[str, Any] = {name: model[name] for name in ("model", "vendor", "form", "memory_type")}
        documents: list[dict[str, Any]] = model["documents"]
        for document in documents:
            row |= document["figures"]
        row["confidence"] = max((d["confidence"] for d in documents), key=CONFIDENCE.index, default="unknown")
        row["source"] = "; ".join(f"{', '.join(d['figures'])}: {d['source']}" for d in documents)
        rows.append(row)
    schema = pl.Schema({column.name: column.dtype() for column in COLUMNS["accelerator_models"]})
    return _frame("accelerator_models", pl.DataFrame(rows, schema=schema))


@cache
def gateway_models() -> pl.DataFrame:
    """The models behind the gateway, one row a ``model``."""
    return _frame("gateway_models", _csv("gateway_models"))


@cache
def links() -> pl.DataFrame:
    """Optical links, one row a ``link``; length and latency follow from the places of its ends."""
    places = sites().select("site", pl.col("latitude", "longitude").radians())
    ends = (
        _csv("links")
        .join(places.rename({"latitude": "a_lat", "longitude": "a_lon"}), left_on="a_site", right_on="site", how="left")
        .join(places.rename({"latitude": "z_lat", "longitude": "z_lon"}), left_on="z_site", right_on="site", how="left")
    )
    haversine = ((pl.col("z_lat") - pl.col("a_lat")) / 2).sin().pow(2) + pl.col("a_lat").cos() * pl.col(
        "z_lat"
    ).cos() * ((pl.col("z_lon") - pl.col("a_lon")) / 2).sin().pow(2)
    great_circle = 2 * EARTH_RADIUS * haversine.sqrt().arcsin()
    return _frame(
        "links",
        ends.with_columns(length_metres=great_circle * pl.col("route_factor")).with_columns(
            latency_seconds=pl.col("length_metres") * SECONDS_PER_METRE
        ),
    )


@cache
def fleet() -> pl.DataFrame:
    """What stands where: one row a (``site``, ``model``)."""
    vendors = accelerator_models().select("model", "vendor")
    return _frame(
        "fleet",
        _csv("fleet")
        .join(vendors, on="model", how="left")
        .with_columns(
            accelerators=pl.col("nodes") * pl.col("accelerators_per_node"),
            racks=(pl.col("nodes") + pl.col("nodes_per_rack") - 1) // pl.col("nodes_per_rack"),
            rated_watts=pl.col("nodes") * pl.col("node_watts"),
        ),
    )


@cache
def tenants() -> pl.DataFrame:
    """Customers of the simulated network, one row a ``tenant``."""
    return _frame("tenants", _csv("tenants"))


@cache
def packages() -> pl.DataFrame:
    """Token packages of the simulated network, one row a ``package``."""
    return _frame("packages", _csv("packages"))


REFERENCES = (
    ("sites", "region", "regions", "region"),
    ("links", "a_site", "sites", "site"),
    ("links", "z_site", "sites", "site"),
    ("fleet", "site", "sites", "site"),
    ("fleet", "model", "accelerator_models", "model"),
    ("tenants", "region", "regions", "region"),
    ("packages", "tenant", "tenants", "tenant"),
)
"""(frame, column) that must be found in (frame, column)."""

KEYS: dict[str, tuple[str, ...]] = {
    "sites": ("site",),
    "regions": ("region",),
    "accelerator_models": ("model",),
    "accelerator_figures": ("model", "figure"),
    "gateway_models": ("model",),
    "links": ("link",),
    "fleet": ("site", "model"),
    "tenants": ("tenant",),
    "packages": ("package",),
}
"""What identifies a row of each frame."""


def problems(frames: Mapping[str, pl.DataFrame]) -> list[str]:
    """What is wrong with a catalogue given as ``everything()`` gives it, one sentence each; none for a sound one."""
    found: list[str] = []
    for name, columns in COLUMNS.items():
        frame = frames[name]
        doubled = frame.filter(pl.struct(KEYS[name]).is_duplicated()).select(KEYS[name]).unique().rows()
        found += [f"{name}: {row} is there more than once" for row in doubled]
        found += [f"{name}.{c.name} has a null" for c in columns if c.required and frame[c.name].null_count()]
    for name, column, target, key in REFERENCES:
        lost = frames[name].join(frames[target], left_on=column, right_on=key, how="anti")[column].unique()
        found += [f"{name}.{column}: {value} is not in {target}" for value in lost]
    for name, value in frames["sites"].select("site", "hub").rows():
        if value not in HUBS:
            found.append(f"sites: {name} belongs to {value}, which is no national hub")
    it_watts = pl.col("utility_capacity_watts") / pl.col("pue_target")
    demand = frames["fleet"].group_by("site").agg(pl.col("rated_watts").sum())
    over = frames["sites"].join(demand, on="site").filter(pl.col("rated_watts") > it_watts)["site"]
    found += [f"fleet: {site} can draw more than its utility feed gives at its PUE" for site in over]
    return found


def everything() -> dict[str, pl.DataFrame]:
    """All frames by name."""
    return {
        "sites": sites(),
        "regions": regions(),
        "accelerator_models": accelerator_models(),
        "accelerator_figures": accelerator_figures(),
        "gateway_models": gateway_models(),
        "links": links(),
        "fleet": fleet(),
        "tenants": tenants(),
        "packages": packages(),
    }


def _data(file: str) -> bytes:
    return (resources.files("schemas") / "data" / file).read_bytes()


def _csv(name: str) -> pl.DataFrame:
    return pl.read_csv(
        _data(f"{name}.csv"),
        schema_overrides={column.name: column.dtype() for column in COLUMNS[name]},
    ).with_columns(pl.col(pl.String).fill_null(""))


@cache
def _accelerators() -> list[dict[str, Any]]:
    return json.loads(_data("accelerator_models.json"))


def _frame(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(column.name).cast(column.dtype) for column in COLUMNS[name])
