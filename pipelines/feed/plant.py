"""The simulated campuses: meters, accelerators and links built on the catalogue, and what they read at any time.

Every reading is a linear function of a few cycles, so the same function gives power (from the cycles' values) and the
energy counter (from their integrals), and the two agree at any moment. Nothing here knows Kafka or a clock.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.feed.cycles import Cycles, cycles, lit_by_sun, seconds_since_origin
from pipelines.feed.noise import Reals, normal, uniform
from schemas import catalog

Times = NDArray[np.int64]
"""Unix nanoseconds."""

SOURCE = "simulator"

PODS_OF_A_HUB = 2
"""A campus reports each kind of accelerator in so many parts, a base station in one: a sample stands for all in it."""

_IDLE_NODE, _IDLE_DEVICE = 0.3, 0.15
"""Share of full power that a server, and an accelerator in it, draws with nothing to do (assumed)."""

_DEVICES_OF_NODE = 0.75
"""Share of a server's power that goes to its accelerators, where their TDP isn't known (assumed)."""

_BESIDE_SERVERS = 1.06
"""IT power ÷ power of the servers: network and storage (assumed)."""

_LOSSES = 0.03
"""Of the power chain, as a share of IT power (assumed)."""

_SOLAR = 0.15
"""Peak of a campus's own solar field ÷ its utility capacity, in the sunny west (assumed)."""

_WIND = 0.005
"""Of its wind turbines, all the time ÷ its utility capacity (assumed): a counter that stood still could round down."""

_SUNNY_HUBS = ("beijing-tianjin-hebei", "inner-mongolia", "gansu", "ningxia", "guizhou")

_METER_NOISE = 0.002
"""Standard deviation of a power reading ÷ the reading: class 0.2 meters."""


class Plant:
    """All sites, their meters (``meters``), parts of the fleet (``pods``) and links (``links``), one row each."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        sites = catalog.sites()
        self.sites: list[str] = sites.get_column("site").to_list()
        self.pods = _pods(sites)
        self.links = catalog.links()
        offset = utc_offsets(sites.get_column("time_zone"))
        hub = (sites.get_column("kind") == "hub").to_numpy()

        self.site_of_pod = _places(self.pods, "site", self.sites)
        part = np.arange(self.pods.height)
        at_hub = hub[self.site_of_pod]
        mean = np.where(at_hub, 0.62, 0.45) + 0.12 * (uniform(seed, "pod", part) - 0.5)
        self.use = cycles(
            seed,
            "use",
            mean,
            # Training runs day and night in the west; inference beside the users follows them.
            daily=np.where(at_hub, 0.07, 0.24),
            peak_hour=np.where(at_hub, 15.0, 20.0) + uniform(seed, "peak", part),
            utc_offset=offset[self.site_of_pod],
            weekly=np.where(at_hub, 0.02, 0.05),
            slow=np.full(len(part), 0.1),
            growth_per_year=0.04,
        )
        free = sites.get_column("free_cooling_share").to_numpy()
        self.weather = cycles(
            seed,
            "weather",
            22.0 - 16.0 * free,
            daily=np.full(len(free), 5.0),
            peak_hour=np.full(len(free), 15.0),
            utc_offset=offset,
            weekly=np.zeros(len(free)),
            slow=np.full(len(free), 6.0),
            yearly=12.0,
        )
        sunny = hub & sites.get_column("hub").is_in(_SUNNY_HUBS).to_numpy()
        capacity = sites.get_column("utility_capacity_watts").to_numpy().astype(np.float64)
        self._lit = np.flatnonzero(sunny)
        self.sun = lit_by_sun(_SOLAR * capacity[self._lit], _WIND * capacity[self._lit], offset[self._lit])

        peak = self.pods.get_column("rated_watts").to_numpy()
        self._pod_idle, self._pod_slope = _IDLE_NODE * peak, (1 - _IDLE_NODE) * peak
        self._pods_to_site = np.zeros((self.pods.height, len(self.sites)))
        self._pods_to_site[part, self.site_of_pod] = _BESIDE_SERVERS
        usual = (self._pod_idle + self._pod_slope * mean) @ self._pods_to_site
        overhead = np.maximum(sites.get_column("pue_target").to_numpy() - 1 - _LOSSES, 0.02)
        self._cooling_share = 0.7 * overhead
        self._cooling_of_degree = 0.012 * overhead * usual  # a swing of 25 K moves it by a third
        self._cooling_base = 0.3 * overhead * usual
        self.meters = self._meters(sites, sunny)
        self.site_of_meter = _places(self.meters, "site", self.sites)
        self.site_of_link = _places(self.links, "a_site", self.sites)
        self._ambient = (self.meters.get_column("role") == "ambient").to_numpy()

        device_peak = self.pods.get_column("device_watts").to_numpy()
        self._device_idle, self._device_slope = _IDLE_DEVICE * device_peak, (1 - _IDLE_DEVICE) * device_peak
        self._memory = self.pods.get_column("memory_bytes").to_numpy().astype(np.float64)

        line = np.arange(self.links.height)
        backbone = (self.links.get_column("kind") == "backbone").to_numpy()
        each_way = {}
        for way in ("a_to_z", "z_to_a"):
            each_way[way] = cycles(
                seed,
                way,
                np.where(backbone, 0.38, 0.3) + 0.2 * (uniform(seed, way, line) - 0.5),
                daily=np.full(len(line), 0.12),
                peak_hour=20.0 + uniform(seed, "line", line),
                utc_offset=offset[self.site_of_link],
                weekly=np.full(len(line), 0.03),
                slow=np.full(len(line), 0.05),
            )
        self._traffic: dict[str, Cycles] = each_way

    def watts(self, times: Times) -> Reals:
        """What each meter should read, W, shape (times, meters); of a thermometer the temperature, °C."""
        t = seconds_since_origin(times)
        return self._readings(np.ones((len(t), 1)), self.use.value(t), self.weather.value(t), self.sun.value(t))

    def joules(self, times: Times) -> Reals:
        """The energy counter of each meter, J, shape (times, meters); without meaning for a thermometer."""
        t = seconds_since_origin(times)
        return self._readings(t[:, None], self.use.integral(t), self.weather.integral(t), self.sun.integral(t))

    def power(self, times: Times, due: NDArray[np.bool_], watts: Reals | None = None) -> pl.DataFrame:
        """The readings that are ``due`` (times, meters), as power events; ``watts`` overrides what meters read."""
        row, meter = np.nonzero(due)
        if len(row) == 0:
            return pl.DataFrame()
        read = (self.watts(times) if watts is None else watts)[row, meter]
        read = read * (1 + _METER_NOISE * normal(self.seed, "meter", meter, times[row] // 1_000_000))
        thermal = self._ambient[meter]
        names = self.meters[meter]
        return names.with_columns(
            time=_utc(times[row]),
            source=pl.lit(SOURCE),
            watts=pl.Series(np.where(thermal, np.nan, read.round(1))),
            joules=pl.Series(np.where(thermal, np.nan, self.joules(times)[row, meter].round())),
            temperature_celsius=pl.Series(np.where(thermal, read.round(2), np.nan)),
            thermal=pl.Series(thermal),
        ).select(
            pl.exclude("watts", "joules", "temperature_celsius", "thermal"),
            pl.when(~pl.col("thermal")).then("watts"),
            pl.when(~pl.col("thermal")).then("joules"),
            pl.when("thermal").then("temperature_celsius"),
        )

    def utilization(self, times: Times, due: NDArray[np.bool_]) -> pl.DataFrame:
        """The samples that are ``due`` (times, pods), as utilization events."""
        row, pod = np.nonzero(due)
        if len(row) == 0:
            return pl.DataFrame()
        use = self.use.value(seconds_since_origin(times))[row, pod]
        moment = times[row] // 1_000_000
        use = np.clip(use + 0.01 * normal(self.seed, "use", pod, moment), 0.0, 1.0)
        watts = self._device_idle[pod] + self._device_slope[pod] * use
        return self.pods[pod].select(
            "site",
            "node",
            "device",
            "vendor",
            "model",
            "devices",
            pl.when(pl.col("memory_bytes") > 0).then("memory_bytes").alias("memory_limit_bytes"),
            time=_utc(times[row]),
            source=pl.lit(SOURCE),
            utilization=pl.Series(use.round(4)),
            memory_used_bytes=pl.when(pl.col("memory_bytes") > 0).then(
                pl.Series((self._memory[pod] * (0.25 + 0.6 * use)).astype(np.int64))
            ),
            temperature_celsius=pl.Series((31 + 38 * use + normal(self.seed, "hot", pod, moment)).round(1)),
            watts=pl.Series(watts.round(2)),
        )

    def link_samples(self, times: Times, due: NDArray[np.bool_], interval_seconds: float) -> pl.DataFrame:
        """The samples that are ``due`` (times, links), as link events; bytes are those of the interval before."""
        row, line = np.nonzero(due)
        if len(row) == 0:
            return pl.DataFrame()
        t = seconds_since_origin(times)
        moment = times[row] // 1_000_000
        names = self.links[line]
        capacity = names.get_column("capacity_bits_per_second").to_numpy()
        moved = {
            way: np.clip(cycle.value(t)[row, line] + 0.01 * normal(self.seed, way, line, moment), 0, 1)
            for way, cycle in self._traffic.items()
        }
        errored = uniform(self.seed, "errors", line, moment) < 0.004
        return names.select(
            "link",
            "a_site",
            "z_site",
            "capacity_bits_per_second",
            time=_utc(times[row]),
            source=pl.lit(SOURCE),
            a_to_z_bytes=pl.Series((moved["a_to_z"] * capacity / 8 * interval_seconds).astype(np.int64)),
            z_to_a_bytes=pl.Series((moved["z_to_a"] * capacity / 8 * interval_seconds).astype(np.int64)),
            # Queues add up to a millisecond as a link fills.
            latency_seconds=pl.col("latency_seconds") + pl.Series(1e-3 * moved["a_to_z"] ** 4),
            rx_power_dbm=pl.Series((-9.0 - 3 * errored + 0.2 * normal(self.seed, "dbm", line, moment)).round(2)),
            errors=pl.Series(np.where(errored, 1 + (moment % 37), 0)),
        )

    def _readings(self, one: Reals, use: Reals, weather: Reals, sun: Reals) -> Reals:
        """All meters from the cycles; linear in (one, use, weather, sun): of energy ``one`` is the integral of 1."""
        pods = self._pod_idle * one + self._pod_slope * use
        it = pods @ self._pods_to_site
        cooling = self._cooling_share * it + self._cooling_base * one + self._cooling_of_degree * (weather - 15 * one)
        generation = np.zeros_like(it)
        generation[:, self._lit] = sun
        utility = it * (1 + _LOSSES) + cooling - generation
        return np.concatenate([utility, it, cooling, sun, pods, weather], axis=1)

    def _meters(self, sites: pl.DataFrame, sunny: NDArray[np.bool_]) -> pl.DataFrame:
        """In the order of _readings."""
        site = sites.select("site")

        def of(rows: pl.DataFrame, role: str) -> pl.DataFrame:
            return rows.select("site", node=pl.lit(""), meter=pl.lit(role), role=pl.lit(role))

        node = self.pods.select("site", "node", meter=pl.lit("input"), role=pl.lit("node"))
        lit = of(site.filter(pl.Series(sunny)), "generation")
        return pl.concat([*(of(site, role) for role in ("utility", "it", "cooling")), lit, node, of(site, "ambient")])


def utc_offsets(zones: pl.Series) -> Reals:
    """Seconds east of UTC for IANA names, as at the reference time (a zone with summer time keeps its winter hour)."""
    when = datetime(2026, 1, 1)  # noqa: DTZ001 - local on purpose
    offsets = {zone: ZoneInfo(zone).utcoffset(when) for zone in zones.unique()}
    return np.array([offset.total_seconds() if (offset := offsets[zone]) else 0.0 for zone in zones])


def _pods(sites: pl.DataFrame) -> pl.DataFrame:
    models = catalog.accelerator_models().select("model", "memory_bytes", "tdp_watts")
    parts = pl.when(pl.col("kind") == "hub").then(PODS_OF_A_HUB).otherwise(1)
    return (
        catalog.fleet()
        .join(sites.select("site", "kind"), on="site")
        .join(models, on="model", how="left")
        .with_columns(parts=parts)
        .with_columns(pod=pl.int_ranges(pl.col("parts")))
        .explode("pod")
        .with_columns(
            devices=(pl.col("accelerators") + pl.col("parts") - 1 - pl.col("pod")) // pl.col("parts"),
            rated_watts=pl.col("rated_watts") / pl.col("parts"),
            node=pl.concat_str(
                pl.col("model").str.to_lowercase().str.replace_all(" ", "-"), pl.lit("-pod-"), pl.col("pod") + 1
            ),
            device=pl.lit("all"),
            memory_bytes=pl.col("memory_bytes").fill_null(0),
            device_watts=pl.col("tdp_watts").fill_null(
                pl.col("node_watts") * _DEVICES_OF_NODE / pl.col("accelerators_per_node")
            ),
        )
        .sort("site", "node")
    )


def _places(frame: pl.DataFrame, column: str, names: list[str]) -> NDArray[np.int64]:
    return frame.get_column(column).replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()


def _utc(times: Times) -> pl.Series:
    return pl.Series(times).cast(pl.Datetime("ns", "UTC"))
