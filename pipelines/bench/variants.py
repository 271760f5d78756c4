"""What is measured against what: the ways of doing the work by name, and the ratios between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.bench.load import LOADS, Load

Counted = Literal["parts", "ledger"]
"""Where it shows how many events can be queried: in the raw table's parts, or in the done ranges."""


@dataclass(frozen=True)
class Variant:
    """One way of doing the work, as ``processes`` of one command, on one load."""

    name: str
    load_name: str
    arguments: tuple[str, ...] = ("-m", "streams.app")
    """Of Python."""
    variables: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    """Of the events, where all would take too long."""
    processes: int = 1
    peer: bool = False
    """Not ours: it reads no settings, only where Kafka and ClickHouse are."""
    script: Path | None = None
    """Where its requirements are (PEP 723): it runs in an environment of its own."""
    tables: tuple[str, ...] = ()
    """Those that must say what was sent, where not all of the event type's."""
    counted: Counted = "parts"
    paced: bool = False
    """Its freshness is measured, too, when no variant is named."""
    group: Literal["main", "factor", "named"] = "main"
    """Measured without a word, with --factors, or only where it is named."""

    @property
    def load(self) -> Load:
        """The events."""
        return LOADS[self.load_name]


_PEERS = Path(__file__).parent / "peers"
_OFF = {"WATTSTREAM_DEDUPE": "false"}
_ROLLUPS = ("-m", "pipelines.bench.rollups_only")
_NO_AUDIT = {"WATTSTREAM_AUDIT_SECONDS": "86400"}
_ROLLUP_TABLES = ("tokens_1m", "usage_1m")


def _rollups(load: str, dedupe: bool) -> Variant:
    return Variant(
        f"wattstream-{load}-rollup{'-dedupe' if dedupe else ''}",
        load,
        _ROLLUPS,
        _NO_AUDIT | ({} if dedupe else _OFF),
        tables=_ROLLUP_TABLES,
        counted="ledger",
    )


def _factor(load: str) -> Variant:
    return Variant(f"wattstream-{load}", load, variables=_OFF, group="factor")


VARIANTS: tuple[Variant, ...] = (
    Variant("wattstream-json", "json", variables=_OFF, paced=True),
    Variant("wattstream-json-dedupe", "json"),
    _rollups("json", dedupe=False),
    Variant("ceiling-json", "json", ("-m", "pipelines.bench.ceiling")),
    Variant("faust-record", "json", ("-m", "pipelines.bench.peers.faust_record"), peer=True, share=0.025),
    Variant(
        "quix",
        "json",
        ("-m", "pipelines.bench.peers.quix_streams"),
        peer=True,
        script=_PEERS / "quix_streams.py",
        share=0.06,
    ),
    Variant(
        "bytewax",
        "json",
        ("-m", "bytewax.run", "pipelines.bench.peers.bytewax_flow:flow"),
        peer=True,
        script=_PEERS / "bytewax_flow.py",
        share=0.06,
    ),
    Variant("wattstream-arrow", "arrow", variables=_OFF, paced=True),
    Variant("wattstream-arrow-dedupe", "arrow"),
    _rollups("arrow", dedupe=False),
    _rollups("arrow", dedupe=True),
    Variant("ceiling-arrow", "arrow", ("-m", "pipelines.bench.ceiling")),
    # What an insert three times as large would bring, for two to three times the memory.
    Variant(
        "ceiling-arrow-1500k",
        "arrow",
        ("-m", "pipelines.bench.ceiling"),
        {"WATTSTREAM_FLUSH_ROWS": "1500000"},
        group="named",
    ),
    Variant("wattstream-array", "array", variables=_OFF),
    Variant("wattstream-array-dedupe", "array"),
    Variant("wattstream-arrow-two-workers", "arrow", variables=_OFF, processes=2, group="factor"),
    Variant("wattstream-replay-dedupe", "replay", group="factor"),
    Variant("wattstream-history-dedupe", "history", group="factor"),
    # What such events cost anyone: nearly as many rows of each rollup as events.
    Variant("ceiling-history", "history", ("-m", "pipelines.bench.ceiling"), group="factor"),
    *(_factor(load) for load in ("tenants", "late", "broken", "devices-1k", "devices-100k")),
)
BY_NAME = {variant.name: variant for variant in VARIANTS}
PEERS = ("quix", "bytewax")

Measure = Literal["events", "cpu", "load cpu"]
"""Events a second; CPU seconds a million events; those of worker and server at 30 % load over those at full speed."""


@dataclass(frozen=True)
class Ratio:
    """One variant over another, and what is wanted: at least, or of CPU at most."""

    over: str
    under: str
    mark: float | None = None
    of: Measure = "events"

    @property
    def name(self) -> str:
        """As in the report."""
        suffix = {"events": "", "cpu": " cpu", "load cpu": " cpu at 30 %"}[self.of]
        return f"{self.over}{suffix}/{self.under}{suffix and ' cpu'}"


BEST_PEER = "best-peer"
RATIOS: tuple[Ratio, ...] = (
    Ratio("wattstream-json", "ceiling-json", 0.90),
    Ratio("wattstream-arrow", "ceiling-arrow", 0.90),
    Ratio("wattstream-arrow", "ceiling-arrow-1500k"),
    Ratio("wattstream-json", BEST_PEER, 2.0),
    *(Ratio("wattstream-json", peer) for peer in PEERS),
    Ratio("wattstream-json", "faust-record", 15.0),
    Ratio("wattstream-arrow", "wattstream-json", 2.5),
    Ratio("wattstream-arrow-rollup", "wattstream-json-rollup", 3.5),
    Ratio("wattstream-json", "ceiling-json", 1.10, "cpu"),
    Ratio("wattstream-arrow", "ceiling-arrow", 1.10, "cpu"),
    *(Ratio(name, name, 1.5, "load cpu") for name in ("wattstream-json", "wattstream-arrow")),
    Ratio("wattstream-json-dedupe", "wattstream-json", 0.93),
    Ratio("wattstream-arrow-dedupe", "wattstream-arrow", 0.85),
    Ratio("wattstream-array-dedupe", "wattstream-array"),
    Ratio("wattstream-arrow-rollup-dedupe", "wattstream-arrow-rollup"),
    Ratio("wattstream-replay-dedupe", "wattstream-arrow", 1.0),
    Ratio("wattstream-history-dedupe", "wattstream-arrow", 1.0),
    Ratio("ceiling-history", "ceiling-arrow"),
    Ratio("wattstream-history-dedupe", "ceiling-history"),
    Ratio("wattstream-tenants", "wattstream-arrow", 0.7),
    Ratio("wattstream-devices-100k", "wattstream-devices-1k", 0.7),
    Ratio("wattstream-late", "wattstream-arrow", 0.9),
    Ratio("wattstream-broken", "wattstream-json", 0.5),
    Ratio("wattstream-arrow-two-workers", "wattstream-arrow"),
)
