# ruff: noqa: S608 (table names are ours)
"""Runs the variants one after the other on one broker and one server, and checks each one's totals before it counts."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from clickhouse_connect.driver.client import Client

from pipelines.bench.load import preload
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse, settings_environment
from pipelines.local.processes import ServerProcess, free_ports
from pipelines.migrate import migrate
from pipelines.topics import create_topics
from schemas.envelope import ENCODINGS, Encoding
from schemas.errors import WattStreamError
from schemas.settings import Settings, load

Say = Callable[[str], None]

TABLES = ("tokens", "tokens_1m", "usage_1m", "claims", "ingest_ranges", "deadletters")
LONGEST_SECONDS = 300.0
STEADY = (0.15, 0.85)
# A look costs the server 3 ms.
LOOK_SECONDS = 0.1
# A fast way needs more events to be measured over as many flushes.
SCALE: dict[Encoding, int] = {"json": 1, "array": 1, "arrow": 4}


@dataclass(frozen=True)
class Variant:
    """One way of doing the work: a module run as a process; ``share`` of the events, where all would take too long."""

    name: str
    encoding: Encoding
    module: str
    variables: dict[str, str] = field(default_factory=dict)
    rollups: tuple[str, ...] = ("tokens_1m", "usage_1m")
    share: float = 1.0


_OFF = {"WATTSTREAM_DEDUPE": "false"}
VARIANTS: tuple[Variant, ...] = (
    *(Variant(f"wattstream-{e}", e, "streams.app", _OFF) for e in ("json", "array", "arrow")),
    *(Variant(f"wattstream-{e}-dedupe", e, "streams.app") for e in ("json", "array", "arrow")),
    Variant("faust-record", "json", "pipelines.bench.faust_record", rollups=("tokens_1m",), share=0.1),
    Variant("ceiling-json", "json", "pipelines.bench.ceiling"),
    Variant("ceiling-arrow", "arrow", "pipelines.bench.ceiling"),
    # What an insert three times as large would bring, for two to three times the memory.
    Variant("ceiling-arrow-1500k", "arrow", "pipelines.bench.ceiling", {"WATTSTREAM_FLUSH_ROWS": "1500000"}),
)
RATIOS = (
    ("wattstream-json", "ceiling-json"),
    ("wattstream-arrow", "ceiling-arrow"),
    ("wattstream-arrow", "ceiling-arrow-1500k"),
    ("wattstream-json", "faust-record"),
    ("wattstream-arrow", "wattstream-json"),
    ("wattstream-json-dedupe", "wattstream-json"),
    ("wattstream-arrow-dedupe", "wattstream-arrow"),
)


@dataclass
class Figures:
    """What one run of a variant measured."""

    events_per_s: float
    cpu_s_per_million: dict[str, float]
    peak_mb: float
    totals_ok: bool
    steps_s_per_million: dict[str, float] = field(default_factory=dict)


def run(events: int, repeat: int, only: Sequence[str], say: Say) -> dict[str, object]:
    """Figures of each variant (the median run) and the ratios between them.

    :raises WattStreamError: a variant did not finish, or its totals are not those of the log.
    """
    unknown = set(only) - {variant.name for variant in VARIANTS}
    if unknown:
        raise WattStreamError(
            f"No variant {', '.join(sorted(unknown))}; there are {', '.join(v.name for v in VARIANTS)}"
        )
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    runs: dict[str, list[Figures]] = {variant.name: [] for variant in chosen}
    for encoding in ENCODINGS:
        if encoding not in {variant.encoding for variant in chosen}:
            continue
        count = events * SCALE[encoding]
        with tempfile.TemporaryDirectory(prefix="wattstream-bench-") as folder:
            settings = load(home=Path(folder), port_base=free_ports(20))
            settings.password("writer")
            server = EmbeddedClickHouse(settings.home, settings.port("clickhouse"))
            with EmbeddedKafka(settings.home, settings.port("kafka")) as broker, server:
                create_topics(settings)
                migrate(settings)
                say(f"{encoding}: putting {count:,} events into Kafka")
                preload(settings, encoding, count)
                parts: dict[str, ServerProcess] = {"broker": broker, "server": server}
                for turn in range(repeat):
                    for variant in (v for v in chosen if v.encoding == encoding):
                        figures = _measure(variant, settings, parts, count)
                        runs[variant.name].append(figures)
                        say(f"{variant.name} {turn + 1}/{repeat}: {figures.events_per_s:,.0f} events/s")
    medians = {name: _median(figures) for name, figures in runs.items()}
    rate = {name: figures.events_per_s for name, figures in medians.items()}
    return {
        "events": events,
        "variants": {
            name: asdict(figures) | {"runs": [round(one.events_per_s) for one in runs[name]]}
            for name, figures in medians.items()
        },
        "ratios": {f"{a}/{b}": rate[a] / rate[b] for a, b in RATIOS if rate.get(a) and rate.get(b)},
    }


def _median(figures: list[Figures]) -> Figures:
    middle = statistics.median_low([one.events_per_s for one in figures])
    return next(one for one in figures if one.events_per_s == middle)


def _measure(variant: Variant, settings: Settings, parts: dict[str, ServerProcess], events: int) -> Figures:
    client = settings.clickhouse_client("writer")
    for table in TABLES:
        client.command(f"TRUNCATE TABLE {table}")
    wanted = int(events * variant.share)
    environment = os.environ | settings_environment(settings) | variant.variables
    with (settings.home / f"{variant.name}.log").open("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", variant.module],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        watched = {"worker": psutil.Process(process.pid)} | {
            name: psutil.Process(part.process.pid) for name, part in parts.items() if part.process is not None
        }
        try:
            window = _Window(client, watched)
            deadline = time.monotonic() + LONGEST_SECONDS
            while window.rows < wanted:
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    tail = log.read()[-2000:].decode(errors="replace")
                    raise WattStreamError(f"{variant.name} stopped at {window.rows:,} of {wanted:,} rows:\n{tail}")
                time.sleep(LOOK_SECONDS)
                window.look()
            ok = _totals_ok(client, variant, events)
        finally:
            _signal(process, signal.SIGTERM)
            try:
                out, _ = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                out, _ = process.communicate()
    figures = window.figures(ok)
    if variant.module.endswith("ceiling") and out.strip():
        figures.steps_s_per_million = {k: v / wanted * 1e6 for k, v in json.loads(out.splitlines()[-1]).items()}
    return figures


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


class _Window:
    """What becomes visible when, and the steady part of it: between ``STEADY`` shares of the rows.

    Neither start-up counts, nor the filling of the queues, nor their emptying at the end of the log: a variant that
    holds a million rows in memory would otherwise be given those for nothing.
    """

    def __init__(self, client: Client, watched: dict[str, psutil.Process]) -> None:
        self._client = client
        self._watched = watched
        self._seen: list[tuple[float, int, dict[str, float]]] = []
        self._peak = 0

    @property
    def rows(self) -> int:
        return self._seen[-1][1] if self._seen else 0

    def look(self) -> None:
        self._peak = max(self._peak, self._watched["worker"].memory_info().rss)
        rows = self._client.query("SELECT sum(rows) FROM system.parts WHERE active AND table = 'tokens'").result_rows
        if (found := int(rows[0][0] or 0)) > self.rows:
            cpu = {name: sum(process.cpu_times()[:2]) for name, process in self._watched.items()}
            self._seen.append((time.monotonic(), found, cpu))

    def figures(self, ok: bool) -> Figures:
        """:raises WattStreamError: where there were too few events to tell."""
        start, end = (share * self.rows for share in STEADY)
        steady = [one for one in self._seen if start <= one[1] <= end]
        if len(steady) < 3:
            raise WattStreamError(
                f"{self.rows:,} events became visible in {len(self._seen)} steps: give it more events"
            )
        (t0, rows0, cpu0), (t1, rows1, cpu1) = steady[0], steady[-1]
        million = (rows1 - rows0) / 1e6
        return Figures(
            events_per_s=(rows1 - rows0) / (t1 - t0),
            cpu_s_per_million={name: (cpu1[name] - cpu0[name]) / million for name in cpu1},
            peak_mb=self._peak / 1e6,
            totals_ok=ok,
        )


def _totals_ok(client: Client, variant: Variant, events: int) -> bool:
    """Raw rows and rollups say the same, and (but for a partial run) exactly what was sent."""
    deadline = time.monotonic() + 30
    while True:
        totals = [
            client.query(f"SELECT sum(requests), sum(input_tokens), sum(output_tokens) FROM {table}").result_rows[0]
            for table in ("tokens", *variant.rollups)
        ]
        if all(one == totals[0] for one in totals) and (variant.share < 1 or totals[0][0] == events):
            return True
        if time.monotonic() > deadline:
            raise WattStreamError(f"{variant.name}: totals differ: {totals}")
        time.sleep(0.2)
