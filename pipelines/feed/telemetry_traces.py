"""Traces of power and accelerators: what their rows are as power readings and utilization samples."""

from typing import NamedTuple

import polars as pl

HARVARD_SITE = "harvard-fasrc"
BIOHPC_SITE = "cornell-biohpc"

HARVARD_ROLES = {
    "Sys Power": "node",
    "Pwr Consumption": "node",  # the same on another make; 0 W in all its readings of 2025-06-03, kept as measured
    "CPU Power": "cpu",
    "Mem Power": "memory",
    "Sys Fan Pwr": "fan",
    "PSU1 AC In Pwr": "psu",
    "PSU1 DC Out Pwr": "psu",
    "PSU2 AC In Pwr": "psu",
    "PSU2 DC Out Pwr": "psu",
    # Of the chassis, and repeated by every node in it: never to be added up over nodes.
    "Chassis Power": "chassis",
    "PSU Power": "chassis",
    "CPU 1 Temp": "cpu",
    "CPU 2 Temp": "cpu",
    "CPU 3 Temp": "cpu",
    "CPU 4 Temp": "cpu",
    "Ambient Temp": "ambient",
    "Inlet Temp": "inlet",
    "Exhaust Temp": "exhaust",
    "Inlet Water Temp": "coolant",
}
"""What each IPMI sensor of the Harvard trace measures."""

OTHER = "other"
"""The role of a sensor that the map doesn't know."""

_WATTS, _CELSIUS = "Watts", "degrees C"


class Server(NamedTuple):
    """The accelerators of one BioHPC server, from the publisher's own picture of them."""

    accelerators: int
    model: str


BIOHPC_SERVERS = {
    "cbsugpu05": Server(2, "A40"),
    "cbsugpu06": Server(2, "A40"),
    "cbsugpu07": Server(1, "A100 80GB"),
    "cbsugpu08": Server(2, "H100 PCIe"),  # they stay at 355 W: the PCIe board's limit, half of the SXM module's
    "cbsugpu09": Server(1, "RTX 6000 Ada"),
    "cbsugpu10": Server(1, "RTX 6000 Ada"),
}


def harvard_ipmi(rows: pl.DataFrame) -> pl.DataFrame:
    """One reading a row; the meter is the sensor within its node.

    A reading in another unit than W or °C has no value here and is found impossible.
    """
    return rows.select(
        time="timestamp",
        source=pl.lit("trace:harvard-ipmi"),
        site=pl.lit(HARVARD_SITE),
        node="node",
        meter="sensor",
        role=pl.col("sensor").replace_strict(HARVARD_ROLES, default=OTHER, return_dtype=pl.String),
        watts=pl.when(pl.col("unit") == _WATTS).then("value"),
        temperature_celsius=pl.when(pl.col("unit") == _CELSIUS).then("value"),
    )


def harvard_emitters(events: pl.DataFrame) -> pl.DataFrame:
    """(site, node, emitter) of the meters that stand for their node: the node's own power, else its first meter.

    One a node: were all its sensors expected, a chassis with many would weigh more than a node with few.
    """
    return (
        events.select("site", "node", "role", emitter="meter")
        .unique()
        .sort("site", "node", pl.col("role") != "node", "emitter")
        .group_by("site", "node", maintain_order=True)
        .agg(pl.col("emitter").first())
    )


def biohpc(rows: pl.DataFrame) -> pl.DataFrame:
    """One sample a row, of a device that stands for all GPUs of the server: the source gives means over them.

    Times are the server's own and are kept as written, as if UTC: the hours that are missing on days in March show
    daylight saving, but no zone is stated. Memory percent (of what isn't said) and the lowest power (capped at 100 W
    upstream) are left out.

    A server that isn't known has no ``devices`` here and is found impossible.
    """
    accelerators = {name: server.accelerators for name, server in BIOHPC_SERVERS.items()}
    models = {name: server.model for name, server in BIOHPC_SERVERS.items()}
    return rows.select(
        time="timestamp",
        source=pl.lit("trace:biohpc"),
        site=pl.lit(BIOHPC_SITE),
        node="name",
        device=pl.lit("gpus"),
        vendor=pl.lit("NVIDIA"),
        model=pl.col("name").replace_strict(models, default="", return_dtype=pl.String),
        devices=pl.col("name").replace_strict(accelerators, default=0, return_dtype=pl.Int64),
        utilization=pl.col("utilave") / 100,
        temperature_celsius="tempave",
        watts="powerave",
    )


def biohpc_emitters(events: pl.DataFrame) -> pl.DataFrame:
    """(site, node, emitter) of the devices."""
    return events.select("site", "node", emitter="device").unique()
