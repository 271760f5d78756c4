"""A plain Faust agent as its documentation writes it: faust.Record models, events taken in batches."""

import os
import tempfile
import uuid
from typing import Any

import faust

from pipelines.bench.peers.records import FLUSH_EVENTS, FLUSH_SECONDS, TOPIC, Tables, bootstrap


class Usage(faust.Record, serializer="json"):
    """One token event."""

    id: str
    source: str
    time: str
    data: dict[str, Any]


def main() -> None:
    """Run the worker, from the start of the log."""
    app = faust.App(
        f"faust-record-{uuid.uuid4()}",
        broker=f"kafka://{bootstrap()}",
        datadir=tempfile.mkdtemp(dir=os.environ["WATTSTREAM_HOME"]),
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_buffer_maxsize=5 * FLUSH_EVENTS,
    )
    tables = Tables()

    @app.agent(app.topic(TOPIC, value_type=Usage))
    async def usage(stream: Any) -> None:
        async for batch in stream.take(FLUSH_EVENTS, within=FLUSH_SECONDS):
            tables.write(event.asdict() for event in batch)

    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
