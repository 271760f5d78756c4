"""What the simulated network's customers ask for: token usage by region, tenant and package, at any time.

Demand is a rate (tokens a second) that follows the day and the week of each region, most of it in the east. Events
sample it: however many there are, together they stand for all of it, so that totals go on smoothly from history
to live and don't depend on the rate of events.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.feed.cycles import cycles, seconds_since_origin
from pipelines.feed.noise import Reals, normal, uniform
from pipelines.feed.plant import Times, utc_offsets
from schemas import catalog

Places = NDArray[np.int64]

TOKENS_PER_DAY = 20e12
"""Of the whole network, all regions (synthetic)."""

_PUBLIC, _TENANTS = 0.7, 0.3
"""Shares of demand: people without a contract, and tenants beside what their packages pay."""

_EVENTS = {"public": 0.6, "tenant": 0.25, "package": 0.15}
"""Shares of live events."""

_SINGLE = 0.5
"""Share of live events that are single requests; the others are usage that a gateway has added up."""

_QUARTER_HOUR = 900 * 1_000_000_000
_SHORT_STEP_SECONDS = 1800

_SAMPLES_A_REGION = 6
"""Rows a region and history step: each stands for a sixth of the region's demand, at a model drawn by demand."""

_TO_HUBS = 0.88
"""Share of requests served by a hub campus; the rest at base stations in the region itself, where there are any."""

_KINDS = {
    "chat": (1500, 350),
    "reasoning": (1800, 1600),
    "code": (4000, 500),
    "vision": (2200, 300),
    "embedding": (600, 0),
    "rerank": (2500, 0),
    "image": (120, 60),
    "video": (300, 100),
    "audio": (400, 150),
    "math": (500, 1500),
    "translation": (500, 450),
}
"""Mean input and output tokens of a request by the model's kind (synthetic)."""


class Demand:
    """Usage events of any window of time; ``packages`` are in use from ``start`` (Unix ns) on."""

    def __init__(self, seed: int, start: int) -> None:
        self.seed = seed
        self.start = start
        regions = catalog.regions()
        self._gateways = pl.Series([f"gateway-{region}" for region in regions.get_column("region")])
        self._regions = regions.get_column("region")
        share = regions.get_column("demand_share").to_numpy()
        mean = TOKENS_PER_DAY / 86_400 * _PUBLIC * share
        some = np.arange(len(mean))
        self._cycle = cycles(
            seed,
            "demand",
            mean,
            daily=0.45 * mean,
            peak_hour=15.0 + 5.0 * uniform(seed, "demand/peak", some),
            utc_offset=utc_offsets(regions.get_column("time_zone")),
            weekly=0.08 * mean,
            slow=0.12 * mean,
            growth_per_year=0.6,
        )
        models = catalog.gateway_models()
        self._models = models.select("provider", "model")
        self._model_odds = _odds(models.get_column("demand_weight"))
        kinds = models.get_column("kind")
        self._input = kinds.replace_strict({k: v[0] for k, v in _KINDS.items()}, return_dtype=pl.Float64).to_numpy()
        self._output = kinds.replace_strict({k: v[1] for k, v in _KINDS.items()}, return_dtype=pl.Float64).to_numpy()
        self._reasons = (kinds == "reasoning").to_numpy()

        tenants = catalog.tenants()
        region_names = self._regions.to_list()
        self._tenants = tenants.get_column("tenant")
        self._tenant_odds = _odds(tenants.get_column("demand_weight"))
        self._tenant_region = _index(tenants.get_column("region"), region_names)

        self.packages = catalog.packages()
        number = np.arange(self.packages.height)
        amount = self.packages.get_column("tokens").to_numpy().astype(np.float64)
        validity = self.packages.get_column("validity_seconds").to_numpy().astype(np.float64)
        self.burn_seconds = np.minimum(validity, 160 * 86_400) * (0.35 + 0.55 * uniform(seed, "burn", number))
        """How long a package lasts at its mean use: always less than it is valid."""
        self.topped_up = uniform(seed, "topped up", number) < 0.9
        """Whether its owner buys again before it is used up; others go on without a package."""
        self._burn = amount / self.burn_seconds
        self._package_tenant = _index(self.packages.get_column("tenant"), self._tenants.to_list())

        self._sites, self._hub_odds, self._edges = _serving(region_names)

    def rate(self, times: Times) -> Reals:
        """Public demand, tokens a second, shape (times, regions)."""
        return self._cycle.value(seconds_since_origin(times))

    def _swing(self, times: Times) -> Reals:
        """Demand ÷ its level, shape (times, 1): packages follow the day and the week, but not the growth."""
        seconds = seconds_since_origin(times)
        level = self._cycle.level(seconds).sum(axis=1, keepdims=True)
        return self._cycle.value(seconds).sum(axis=1, keepdims=True) / level

    def live(self, window: int, begin: int, end: int, events: int) -> pl.DataFrame:
        """So many events spread over [begin, end) ns, ids unique by ``window``; together they stand for all usage."""
        if events == 0:
            return pl.DataFrame()
        place = np.arange(events)
        times = begin + ((end - begin) * uniform(self.seed, "when", window, place)).astype(np.int64)
        kind = np.searchsorted(np.cumsum(list(_EVENTS.values()))[:-1], uniform(self.seed, "kind", window, place))
        public, tenant = kind == 0, kind == 1
        paid = kind == 2
        seconds = (end - begin) / 1e9
        rate = self.rate(np.array([begin], dtype=np.int64))[0]
        burn = self._burning(begin)
        drawn = uniform(self.seed, "who", window, place)
        who = np.zeros(events, dtype=np.int64)
        who[public] = np.searchsorted(np.cumsum(rate) / rate.sum(), drawn[public])
        who[tenant] = np.searchsorted(self._tenant_odds, drawn[tenant])
        who[paid] = np.searchsorted(np.cumsum(burn) / burn.sum(), drawn[paid])
        swing = self._swing(np.array([begin], dtype=np.int64)).item()
        model = np.searchsorted(self._model_odds, uniform(self.seed, "model", window, place))
        each = self._input[model] + self._output[model]
        single = (uniform(self.seed, "single", window, place) < _SINGLE) & ~paid
        target = each.copy()
        totals = (rate.sum(), rate.sum() / _PUBLIC * _TENANTS, burn.sum() * swing)
        for mine, total in zip((public, tenant, paid), totals, strict=True):
            added_up = mine & ~single
            left = max(total * seconds - each[mine & single].sum(), 0.0)
            weight = 0.5 + uniform(self.seed, "weight", window, place[added_up])
            target[added_up] = left * weight / weight.sum() if len(weight) else 0.0
        ids = pl.select(pl.concat_str(pl.lit(f"{window}-"), pl.Series(place))).to_series()
        return self._usage(times, ids, (public, tenant, paid), who, model, target, (window, place))

    def history(self, begins: Times, ends: Times) -> pl.DataFrame:
        """Usage added up over each step [begin, end) ns: of every region, and of tenants and packages.

        Each is told at a moment of its step: all at its begin, a bucket that is no multiple of the step would hold one
        step's usage or two. Of short steps each takes another quarter of the tenants and packages, with four times
        their usage.
        """
        seconds = (ends - begins) / 1e9
        rate = self.rate(begins)
        total = rate.sum(axis=1, keepdims=True)
        burning = np.stack([self._burning(int(begin)) for begin in begins])
        weight = np.diff(self._tenant_odds, prepend=0.0)
        public = np.repeat(np.arange(rate.shape[1]), _SAMPLES_A_REGION)
        wanted = np.concatenate(
            [rate[:, public] / _SAMPLES_A_REGION, total / _PUBLIC * _TENANTS * weight, burning * self._swing(begins)],
            axis=1,
        )
        who = np.concatenate([public, np.arange(len(weight)), np.arange(burning.shape[1])])
        kind = np.repeat([0, 1, 2], [len(public), len(weight), burning.shape[1]])
        every = np.where((kind[None, :] > 0) & (seconds[:, None] < _SHORT_STEP_SECONDS), 4, 1)
        turn = (np.arange(len(who)) + (begins // _QUARTER_HOUR)[:, None]) % every == 0
        target = wanted * seconds[:, None] * every
        step, place = np.nonzero(turn & (target >= 1))
        begin = begins[step]
        model = np.searchsorted(self._model_odds, uniform(self.seed, "history/model", begin, place))
        ids = pl.select(pl.concat_str(pl.Series(begin // 1_000_000_000), pl.lit("-h"), pl.Series(place))).to_series()
        kinds = (kind[place] == 0, kind[place] == 1, kind[place] == 2)
        within = uniform(self.seed, "history/time", begin, place) * (ends - begins)[step]
        return self._usage(
            begin + within.astype(np.int64), ids, kinds, who[place], model, target[step, place], (begin, place)
        )

    def ledger(self, begin: int, end: int) -> pl.DataFrame:
        """Package entries in [begin, end) ns: all are granted at the start, most topped up before they are used up."""
        period = (0.93 * self.burn_seconds * 1e9).astype(np.int64)
        first = np.maximum(-((self.start - begin) // period), 0)
        rows: list[tuple[int, int, int]] = []
        for package in np.flatnonzero(self.start + first * period < end):
            number = int(first[package])
            while (moment := self.start + number * int(period[package])) < end:
                if moment >= begin and (number == 0 or self.topped_up[package]):
                    rows.append((int(package), number, moment))
                number += 1
        if not rows:
            return pl.DataFrame()
        package, count, moments = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        time = pl.Series(moments).cast(pl.Datetime("ns", "UTC"))
        return self.packages[package].select(
            "package",
            "tenant",
            "tokens",
            "priority",
            time=time,
            source=pl.lit("simulator"),
            id=pl.concat_str("package", pl.Series(count), separator="/"),
            entry=pl.Series(np.where(count == 0, "granted", "topped_up").tolist()),
            effective=time,
            expiry=time + pl.duration(seconds=pl.col("validity_seconds"), time_unit="ns"),
        )

    def _burning(self, moment: int) -> Reals:
        """Mean use of each package, tokens a second; nothing before it was granted or after it is used up."""
        age = (moment - self.start) / 1e9
        return np.where((age >= 0) & (self.topped_up | (age < self.burn_seconds)), self._burn, 0.0)

    def _usage(
        self,
        times: Times,
        ids: pl.Series,
        kinds: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]],
        who: Places,
        model: Places,
        target: Reals,
        draw: tuple[int | Times, Places],
    ) -> pl.DataFrame:
        """Token events of ``who``, a region, tenant or package by ``kinds``, each for about ``target`` tokens."""
        public, by_tenant, paid = kinds
        tenant = np.where(by_tenant, who, np.where(paid, self._package_tenant[np.where(paid, who, 0)], -1))
        region = np.where(public, who, self._tenant_region[tenant])
        each = self._input[model] + self._output[model]
        requests = np.maximum(np.rint(target / each), 1)
        spread = np.where(requests == 1, 0.8, 0.05)
        size = target / each * np.exp(spread * normal(self.seed, "size", *draw) - spread * spread / 2)
        input_tokens = np.maximum(np.rint(size * self._input[model]), 1).astype(np.int64)
        output_tokens = np.rint(size * self._output[model]).astype(np.int64)
        cached = np.rint(input_tokens * 0.4 * uniform(self.seed, "cached", *draw)).astype(np.int64)
        first = 0.15 + 0.6 * uniform(self.seed, "first", *draw) ** 3
        pace = 25 + 50 * uniform(self.seed, "pace", *draw)
        failed = (requests == 1) & (uniform(self.seed, "failed", *draw) < 0.004)
        hub = np.searchsorted(self._hub_odds, uniform(self.seed, "site", *draw))
        edges = self._edges[region, (uniform(self.seed, "edge", *draw) * self._edges.shape[1]).astype(np.int64)]
        near = (uniform(self.seed, "near", *draw) >= _TO_HUBS) & (edges >= 0)
        gateway = self._gateways.gather(region)
        return pl.DataFrame(
            {
                "time": pl.Series(times).cast(pl.Datetime("ns", "UTC")),
                "source": gateway,
                "id": ids,
                "gateway": gateway,
                "region": self._regions.gather(region),
                "site": self._sites.gather(np.where(near, edges, hub)),
                "tenant": _named(self._tenants, tenant),
                "package": _named(self.packages.get_column("package"), np.where(paid, who, -1)),
                "provider": self._models.get_column("provider").gather(model),
                "model": self._models.get_column("model").gather(model),
                "requests": requests.astype(np.int64),
                "input_tokens": input_tokens,
                "output_tokens": pl.Series(output_tokens).set(pl.Series(failed), None),
                "cache_read_tokens": cached,
                "reasoning_tokens": pl.Series((0.6 * output_tokens).astype(np.int64)).set(
                    pl.Series(failed | ~self._reasons[model]), None
                ),
                "duration_seconds": (first + output_tokens / requests / pace).round(4),
                "first_token_seconds": first.round(4),
                "error_type": pl.Series(["", "timeout"]).gather(failed.astype(np.int64)),
            }
        )


def _odds(weights: pl.Series) -> Reals:
    """Cumulative, so that a number in [0, 1) picks a place by searchsorted; ends just above 1."""
    total = np.cumsum(weights.to_numpy().astype(np.float64))
    return total / total[-1] + np.where(np.arange(len(total)) == len(total) - 1, 1e-9, 0.0)


def _index(column: pl.Series, names: list[str]) -> Places:
    return column.replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()


def _named(names: pl.Series, places: Places) -> pl.Series:
    """Names by place, empty for −1."""
    return pl.concat([names, pl.Series([""])]).gather(np.where(places < 0, len(names), places))


def _serving(regions: list[str]) -> tuple[pl.Series, Reals, Places]:
    """Site names, the odds of hub campuses by their accelerators (others 0), and edge sites by region (−1 for none)."""
    sites = catalog.sites()
    count = catalog.fleet().group_by("site").agg(pl.col("accelerators").sum())
    joined = sites.join(count, on="site", how="left", maintain_order="left")
    weight = pl.select(pl.when(joined["kind"] == "hub").then(joined["accelerators"]).otherwise(0)).to_series()
    edges = [
        np.flatnonzero(((joined["kind"] == "edge") & (joined["region"] == region)).to_numpy()) for region in regions
    ]
    width = max(len(found) for found in edges)
    table = np.full((len(regions), width), -1, dtype=np.int64)
    for region, found in enumerate(edges):
        if len(found):
            table[region] = np.resize(found, width)
    return joined.get_column("site"), _odds(weight), table
