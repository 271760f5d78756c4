"""What the simulated network owns and who is expected to report: capacity events and emitters, from the catalogue."""

from datetime import datetime

import numpy as np
import polars as pl

from pipelines.feed.noise import uniform
from pipelines.feed.plant import SOURCE, Plant
from schemas import catalog

_ALLOCATED = 0.8
"""Share of the accelerators that is promised to somebody at the start (synthetic)."""

_GROWTH = 0.25
"""A planned step adds this share of what a campus has (synthetic)."""


def capacity_events(plant: Plant, start: int) -> pl.DataFrame:
    """What each site and link has at ``start`` (Unix ns), and a planned step of each campus, 2 to 14 months later."""
    sites, fleet, links = catalog.sites(), catalog.fleet(), catalog.links()
    feed = sites.select(
        "site", "kind", resource=pl.lit("utility_feed"), subject=pl.lit(""), amount="utility_capacity_watts"
    )
    fleets = fleet.join(sites.select("site", "kind"), on="site").select(
        "site", "kind", resource=pl.lit("accelerators"), subject="model", amount="accelerators"
    )
    lines = links.select(
        site="a_site", kind=pl.lit(""), resource=pl.lit("link"), subject="link", amount="capacity_bits_per_second"
    )
    now = pl.concat([feed, fleets, lines]).with_columns(status=pl.lit("actual"), months=pl.lit(0.0))
    hubs = now.filter(pl.col("kind") == "hub")
    later = hubs.with_columns(
        amount=(pl.col("amount") * (1 + _GROWTH)).cast(pl.Int64),
        status=pl.lit("planned"),
        months=pl.Series(2 + 12 * uniform(plant.seed, "planned", np.arange(hubs.height))),
    )
    moment = pl.lit(start).cast(pl.Datetime("ns", "UTC"))
    promised = (pl.col("resource") == "accelerators") & (pl.col("status") == "actual")
    return pl.concat([now, later]).select(
        "site",
        "resource",
        "subject",
        "amount",
        "status",
        time=moment,
        source=pl.lit(SOURCE),
        id=pl.concat_str("site", "resource", "subject", "status", pl.lit(str(start // 1_000_000_000)), separator="/"),
        allocated=pl.when(promised).then((pl.col("amount") * _ALLOCATED).cast(pl.Int64)),
        effective=moment + pl.duration(days=(pl.col("months") * 30).cast(pl.Int64), time_unit="ns"),
    )


def emitters(plant: Plant, interval_seconds: int, since: datetime, until: datetime) -> pl.DataFrame:
    """Every meter, accelerator sample and link of the network, expected for a span of time."""
    every = pl.concat(
        [
            plant.meters.select("site", "node", topic=pl.lit("power"), emitter="meter"),
            plant.pods.select("site", "node", topic=pl.lit("utilization"), emitter="device"),
            plant.links.select(site="a_site", node=pl.lit(""), topic=pl.lit("links"), emitter="link"),
        ]
    )
    return every.with_columns(interval_seconds=pl.lit(interval_seconds), since=pl.lit(since), until=pl.lit(until))
