"""What a run of the bench has found so far: medians, spreads, and the ratios between variants."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.bench.measure import AtLoad, FullSpeed, Soak
from pipelines.bench.variants import BEST_PEER, PEERS, RATIOS, Ratio


@dataclass
class Report:
    """Figures by variant, as they come."""

    events: int
    repeat: int
    runs: dict[str, list[FullSpeed]] = field(default_factory=dict)
    at_loads: dict[str, dict[int, AtLoad]] = field(default_factory=dict)
    """By variant and per cent of its maximum."""
    soaks: dict[str, Soak] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """What did not run to its end, or wrote other totals: none of its figures counts."""
    missing: dict[str, str] = field(default_factory=dict)
    """What can't run here."""
    more: dict[str, float] = field(default_factory=dict)
    """Ratios that are no variants'."""

    def median(self, variant: str) -> FullSpeed:
        """Its run in the middle."""
        runs = self.runs[variant]
        middle = statistics.median_low([one.events_per_s for one in runs])
        return next(one for one in runs if one.events_per_s == middle)

    def spread(self, variant: str) -> float:
        """Between its fastest and its slowest run, as a share of the median."""
        rates = [one.events_per_s for one in self.runs[variant]]
        return (max(rates) - min(rates)) / statistics.median_low(rates)

    @property
    def counted(self) -> list[str]:
        """The variants whose figures count."""
        return [name for name in self.runs if name not in self.failed]

    def ratios(self) -> dict[str, tuple[float, Ratio | None]]:
        """Those that can be told, by name, with what is wanted of them."""
        found: dict[str, tuple[float, Ratio | None]] = {}
        for ratio in RATIOS:
            if (value := self._ratio(ratio)) is not None:
                found[ratio.name] = (value, ratio)
        return found | {name: (value, None) for name, value in self.more.items()}

    def _ratio(self, ratio: Ratio) -> float | None:
        peers = [name for name in PEERS if name in self.counted]
        under = ratio.under
        if under == BEST_PEER and peers:
            under = max(peers, key=lambda name: self.median(name).events_per_s)
        if ratio.over not in self.counted or under not in self.counted:
            return None
        over, below = self.median(ratio.over), self.median(under)
        if ratio.of == "events":
            return over.events_per_s / below.events_per_s
        if ratio.of == "cpu":
            return over.cpu_s / below.cpu_s
        load = self.at_loads.get(ratio.over)
        return None if load is None else load[min(load)].reading_cpu_s / below.reading_cpu_s

    def document(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "events": self.events,
            "repeat": self.repeat,
            "variants": {name: self._variant(name) for name in self.runs},
            "ratios": {name: round(value, 4) for name, (value, _) in self.ratios().items()},
            "failed": self.failed,
            "missing": self.missing,
        }

    def _variant(self, name: str) -> dict[str, Any]:
        if name in self.failed:
            figures = ("events_per_s", "cpu_s_per_million", "peak_mb", "freshness_p50_s", "freshness_p99_s")
            return dict.fromkeys(figures) | {"totals_ok": False}
        median, loads = self.median(name), self.at_loads.get(name, {})
        first = loads[min(loads)] if loads else None
        return {
            "events_per_s": median.events_per_s,
            "cpu_s_per_million": median.cpu_s_per_million,
            "peak_mb": median.peak_mb,
            "freshness_p50_s": first.freshness_p50_s if first else None,
            "freshness_p99_s": first.freshness_p99_s if first else None,
            "totals_ok": True,
            "runs": [round(one.events_per_s) for one in self.runs[name]],
            "spread": self.spread(name),
            "steps_s_per_million": median.steps_s_per_million,
            "at_load": {str(load): asdict(figures) for load, figures in loads.items()},
        } | ({"soak": asdict(self.soaks[name])} if name in self.soaks else {})
