"""Waits until what was sent can be queried: the workers' ledger has passed the last offset of each partition."""

import time
from collections.abc import Callable, Mapping

from clickhouse_connect.driver.client import Client

from pipelines.feed.producer import Span
from schemas.errors import WattStreamError

_POLL_SECONDS = 0.25
_STALL_SECONDS = 120.0
"""A partition changes hands in 4 to 12 s; a worker that moves nothing for this long isn't there."""

# A topic that was deleted and made anew counts offsets from 0 again: ranges of the old one arrived before ours.
_DONE = """
SELECT topic, topic_partition, max(last)
FROM ingest_ranges
WHERE (topic, topic_partition) IN {places:Array(Tuple(String, UInt16))}
  AND arrived >= fromUnixTimestamp64Milli({since:Int64})
GROUP BY topic, topic_partition
"""


def wait_until_queryable(
    client: Client,
    spans: Mapping[tuple[str, int], Span],
    progress: Callable[[int, int], None] = lambda done, total: None,
    stall_seconds: float = _STALL_SECONDS,
) -> None:
    """Return when every message of ``spans`` has its rows in the tables; ``progress`` counts offsets.

    :raises WattStreamError: where nothing moves for ``stall_seconds``.
    """
    total = sum(span.last - span.first + 1 for span in spans.values())
    since = min((span.first_arrived for span in spans.values()), default=0)
    best, moved = -1, time.monotonic()
    while True:
        found = client.query(_DONE, parameters={"places": list(spans), "since": since}).result_rows
        ends = {(topic, partition): last for topic, partition, last in found}
        done = sum(max(0, min(ends.get(place, -1), span.last) - span.first + 1) for place, span in spans.items())
        progress(done, total)
        if done == total:
            return
        if done > best:
            best, moved = done, time.monotonic()
        elif time.monotonic() - moved > stall_seconds:
            raise WattStreamError(
                f"Everything is sent and safe in Kafka, but no worker has written it for {stall_seconds:.0f} s "
                f"({done} of {total} offsets done). Is the worker running (wattstream status)?"
            )
        time.sleep(_POLL_SECONDS)
