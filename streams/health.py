"""What a worker says of itself: Prometheus metrics, and a health page that turns red when a partition stands still."""

import asyncio
from typing import Any

import faust
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from streams.sink import Sink

COUNTS = (
    "messages",
    "events",
    "rows",
    "duplicates",
    "rejects",
    "flushes",
    "takes",
    "troubles",
    "audits",
    "differences",
    "mended",
)


class _Collector:
    def __init__(self, sinks: dict[str, Sink]) -> None:
        self._sinks = sinks

    def collect(self) -> Any:
        for name in COUNTS:
            counter = CounterMetricFamily(f"wattstream_{name}", f"{name} since the worker started.", labels=["topic"])
            for topic, sink in self._sinks.items():
                counter.add_metric([topic], getattr(sink.progress, name))
            yield counter
        position = GaugeMetricFamily(
            "wattstream_position", "End of the done ranges, an offset.", labels=["topic", "partition"]
        )
        halted = GaugeMetricFamily(
            "wattstream_halted", "1 for a partition that stands still.", labels=["topic", "partition"]
        )
        for topic, sink in self._sinks.items():
            for partition, offset in sink.progress.positions.items():
                position.add_metric([topic, str(partition)], offset)
            for partition in sink.progress.halted:
                halted.add_metric([topic, str(partition)], 1)
        yield position
        yield halted


def serve(app: faust.App, sinks: dict[str, Sink]) -> None:
    """Add /metrics and /health to the worker's web server."""
    registry = CollectorRegistry()
    registry.register(_Collector(sinks))  # type: ignore[arg-type]

    @app.page("/metrics")
    async def metrics(web: Any, _: Any) -> Any:
        return web.bytes(generate_latest(registry), content_type=CONTENT_TYPE_LATEST.partition(";")[0])

    @app.page("/health")
    async def healthy(web: Any, _: Any) -> Any:
        halted = {
            f"{topic}/{partition}": why
            for topic, sink in sinks.items()
            for partition, why in sink.progress.halted.items()
        }
        now = asyncio.get_running_loop().time()
        partitions = {
            f"{topic}/{partition}": {
                "position": offset,
                "still_seconds": round(now - sink.progress.moved[partition], 1),
            }
            for topic, sink in sinks.items()
            for partition, offset in sink.progress.positions.items()
        }
        return web.json({"halted": halted, "partitions": partitions}, status=503 if halted else 200)
