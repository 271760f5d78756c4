"""What a worker says of itself: Prometheus metrics, and a health page that turns red when a partition stands still.

The end of a log is asked of Kafka every few seconds, in one request a broker and none a scrape. The fetcher's own
high-water mark would be free, but stays where it was while a partition is held back: just when lag must be seen.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import faust
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.log import Logs
from streams.progress import Progress
from streams.sink import Sink

LOOK_SECONDS = 2.0

COUNTS = {
    "messages": ("messages", "Kafka messages of done ranges"),
    "events": ("events", "Events in them: rows, duplicates and dead letters"),
    "rows": ("rows", "Events written to the raw table"),
    "duplicates": ("duplicates", "Events whose identity was seen before"),
    "rejects": ("deadletters", "Events or messages that could not be used: `wattstream deadletters list`"),
    "flushes": ("flushes", "Flushes written"),
    "takes": ("takes", "Partitions taken"),
    "troubles": ("troubles", "Errors after which partitions were taken again"),
    "audits": ("audits", "Audits of closed ranges"),
    "differences": ("audit_differences", "Differences that audits found between ledger, raw table and rollups"),
    "mended": ("audit_mended", "Those of them that were mended"),
}
"""By name in Progress: the metric, without ``wattstream_`` and ``_total``, and what it counts since the start."""


class _Collector(Collector):
    def __init__(self, progress: Mapping[str, Progress], now: float) -> None:
        self._progress = progress
        self._now = now

    def collect(self) -> Iterator[Metric]:
        for name, (metric, what) in COUNTS.items():
            counter = CounterMetricFamily(
                f"wattstream_{metric}", f"{what}, since the worker started.", labels=["topic"]
            )
            for topic, progress in self._progress.items():
                counter.add_metric([topic], getattr(progress, name))
            yield counter
        position = _gauge("position", "End of the done ranges, an offset.")
        lag = _gauge("lag_records", "Offsets of the log beyond the done ranges, without those that hold no record.")
        age = _gauge("position_age_seconds", "Since when the position has not moved while records wait; else 0.")
        halted = _gauge("halted", "1 for a partition that is left alone until somebody looks: /health says why.")
        for topic, progress in self._progress.items():
            for number, one in progress.partitions.items():
                labels = [topic, str(number)]
                age.add_metric(labels, one.still_seconds(self._now))
                halted.add_metric(labels, int(number in progress.halted))
                if one.position is not None and one.lag is not None:
                    position.add_metric(labels, one.position)
                    lag.add_metric(labels, one.lag)
        yield from (position, lag, age, halted)


def _gauge(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"wattstream_{name}", what, labels=["topic", "partition"])


def metrics(progress: Mapping[str, Progress], now: float) -> bytes:
    """All of it by topic, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(progress, now))
    return generate_latest(registry)


def health(progress: Mapping[str, Progress], now: float, limit_seconds: float) -> tuple[int, dict[str, Any]]:
    """(200, or 503 where a partition is halted or stands still; the partitions and the reasons)."""
    halted, still, partitions = {}, {}, {}
    for topic, of_topic in progress.items():
        halted |= {f"{topic}/{number}": why for number, why in of_topic.halted.items()}
        found = of_topic.standing_still(now, limit_seconds)
        still |= {f"{topic}/{number}": why for number, why in found.items()}
        for number, one in of_topic.partitions.items():
            partitions[f"{topic}/{number}"] = {
                "position": one.position,
                "lag": one.lag,
                "still_seconds": round(one.still_seconds(now), 1),
            }
    document = {"halted": halted, "standing_still": still, "partitions": partitions}
    return 503 if halted or still else 200, document


def serve(app: faust.App, sinks: Mapping[str, Sink], logs: Logs, limit_seconds: float) -> None:
    """Add /metrics and /health to the worker's web server, and ask Kafka for the ends of the logs."""
    progress = {topic: sink.progress for topic, sink in sinks.items()}

    @app.timer(LOOK_SECONDS)
    async def look() -> None:
        loop = asyncio.get_running_loop()
        places = [(topic, number) for topic, of_topic in progress.items() for number in of_topic.partitions]
        ends: dict[tuple[str, int], int] = {}
        with contextlib.suppress(Exception):  # what was known stands; a timer that raises would end the worker
            ends = await loop.run_in_executor(None, logs.ends, places)
        for topic, of_topic in progress.items():
            of_topic.look({number: end for (name, number), end in ends.items() if name == topic}, loop.time())

    @app.page("/metrics")
    async def metrics_page(web: Any, _: Any) -> Any:
        text = metrics(progress, asyncio.get_running_loop().time())
        return web.bytes(text, content_type=CONTENT_TYPE_LATEST.partition(";")[0])

    @app.page("/health")
    async def health_page(web: Any, _: Any) -> Any:
        status, document = health(progress, asyncio.get_running_loop().time(), limit_seconds)
        return web.json(document, status=status)
