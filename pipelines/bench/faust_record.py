"""A plain Faust agent as its documentation writes it: faust.Record models, events taken in batches, the same tables.

Rows and one-minute sums are written; latency histograms, identities and everything that makes it exact are left out.
"""

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import faust

from schemas.events import TOKENS
from schemas.settings import load

NAMES = ("site", "region", "gateway", "provider", "model")
COLUMNS = ("time", "source", "id", *NAMES, "tenant", "package", "requests", "input_tokens", "output_tokens")


class Usage(faust.Record, serializer="json"):
    """One token event."""

    id: str
    source: str
    time: str
    data: dict[str, Any]


def main() -> None:
    """Run the worker; WATTSTREAM_* says where Kafka and ClickHouse are."""
    settings = load()
    folder = settings.home.absolute() / "faust-record"
    folder.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        "faust-record",
        broker=f"kafka://{settings.bootstrap}",
        datadir=str(folder),
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_buffer_maxsize=50_000,
    )
    topic = app.topic(TOKENS.topic, value_type=Usage)
    client = settings.clickhouse_client("writer")

    @app.agent(topic)
    async def usage(stream: Any) -> None:
        async for batch in stream.take(10_000, within=settings.flush_seconds):
            rows, sums = [], defaultdict(lambda: [0, 0, 0, 0])
            for event in batch:
                data = event.data
                at = datetime.fromisoformat(event.time[:26]).replace(tzinfo=UTC)
                tokens = data["gen_ai.usage.input_tokens"], data["gen_ai.usage.output_tokens"]
                names = [data[n] for n in ("site", "region", "gateway", "gen_ai.provider.name", "gen_ai.request.model")]
                rows.append([at, event.source, event.id, *names, data["tenant"], data["package"], 1, *tokens])
                for key in (("tokens_1m", at.replace(second=0, microsecond=0), *names),):
                    total = sums[key]
                    total[0] += 1
                    total[1] += 1
                    total[2] += tokens[0]
                    total[3] += tokens[1]
            client.insert(
                TOKENS.name,
                rows,
                column_names=COLUMNS,
            )
            client.insert(
                "tokens_1m",
                [[*key[1:], *total] for key, total in sums.items()],
                column_names=["minute", *NAMES, "samples", "requests", "input_tokens", "output_tokens"],
            )

    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
