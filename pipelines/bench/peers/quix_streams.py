# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["quixstreams==3.28.1", "clickhouse-connect==1.12.0"]
# ///
# pyright: reportMissingImports=false, reportUntypedBaseClass=false
"""Quix Streams as its documentation writes it: a StreamingDataFrame into a BatchingSink of one's own.

Its own windows (state in RocksDB, a changelog topic) would be slower than sums a batch. Needs other versions of Kafka's
client and of pydantic than we do, so an environment of its own, by the lines above.
"""

import uuid
from typing import Any

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from pipelines.bench.peers.records import FLUSH_SECONDS, TOPIC, Tables, bootstrap


class ClickHouseSink(BatchingSink):
    """Writes what a checkpoint holds of a partition."""

    def setup(self) -> None:
        """Connect."""
        self._tables = Tables()

    def write(self, batch: SinkBatch) -> None:
        """Insert it."""
        events: list[Any] = [item.value for item in batch]
        self._tables.write(events)


def main() -> None:
    """Run the application, from the start of the log."""
    app = Application(
        broker_address=bootstrap(),
        consumer_group=f"quix-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        commit_interval=FLUSH_SECONDS,
        auto_create_topics=False,
        loglevel="WARNING",
    )
    events = app.dataframe(app.topic(TOPIC, value_deserializer="json"))
    events.sink(ClickHouseSink())
    app.run()


if __name__ == "__main__":
    main()
