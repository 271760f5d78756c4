"""What the peers do with each event, the same for all: a row of the raw table, and sums a minute for the two rollups.

In plain Python, an event at a time, as their documentation writes it. Left out for their good: identities, latency
histograms, counts of unknown and failed requests, and everything that makes it exact. Runs in their own environments,
so it imports nothing of ours; WATTSTREAM_* says where ClickHouse is.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect

TOPIC = "wattstream.tokens.v1"
FLUSH_EVENTS, FLUSH_SECONDS = 10_000, 1.0

_NAMES = {
    "site": "site",
    "region": "region",
    "gateway": "gateway",
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
}
_SUMS = ["samples", "requests", "input_tokens", "output_tokens"]


def bootstrap() -> str:
    """Kafka's bootstrap servers."""
    return os.environ["WATTSTREAM_KAFKA"]


class Tables:
    """The three tables, by a client of its own."""

    def __init__(self) -> None:
        url = urlsplit(os.environ["WATTSTREAM_CLICKHOUSE"])
        self._client = clickhouse_connect.get_client(
            host=url.hostname or "",
            port=url.port or 8123,
            username="writer",
            password=os.environ["WATTSTREAM_CLICKHOUSE_WRITER_PASSWORD"],
            database="wattstream",
            compress=False,
            autogenerate_session_id=False,
        )

    def write(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Insert CloudEvents, and what they come to by minute."""
        rows: list[list[Any]] = []
        tokens_1m: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_SUMS))
        usage_1m: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_SUMS))
        for event in events:
            data = event["data"]
            at = datetime.fromisoformat(event["time"][:26]).replace(tzinfo=UTC)
            minute = at.replace(second=0, microsecond=0)
            names = [data[attribute] for attribute in _NAMES.values()]
            input_tokens, output_tokens = data["gen_ai.usage.input_tokens"], data["gen_ai.usage.output_tokens"]
            tenant, package = data["tenant"], data["package"]
            rows.append([at, event["source"], event["id"], *names, tenant, package, 1, input_tokens, output_tokens])
            for sums in (tokens_1m[(minute, *names)], usage_1m[minute, tenant, package, names[-1]]):
                sums[0] += 1
                sums[1] += 1
                sums[2] += input_tokens
                sums[3] += output_tokens
        if not rows:
            return
        raw = ["time", "source", "id", *_NAMES, "tenant", "package", *_SUMS[1:]]
        self._client.insert("tokens", rows, column_names=raw)
        for table, keys, found in (
            ("tokens_1m", ["minute", *_NAMES], tokens_1m),
            ("usage_1m", ["minute", "tenant", "package", "model"], usage_1m),
        ):
            self._client.insert(table, [[*key, *sums] for key, sums in found.items()], column_names=[*keys, *_SUMS])
