# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["bytewax[kafka]==0.21.1", "clickhouse-connect==1.12.0"]
# ///
# pyright: reportMissingImports=false, reportUntypedBaseClass=false
"""Bytewax as its documentation writes it: Kafka's operators, events collected into batches, a sink of one's own.

There is no wheel of it for Python 3.13.
"""

import json
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from pipelines.bench.peers.records import FLUSH_EVENTS, FLUSH_SECONDS, TOPIC, Tables, bootstrap


class _Partition(StatelessSinkPartition):
    def __init__(self) -> None:
        self._tables = Tables()

    def write_batch(self, items: list[Any]) -> None:
        for _, events in items:
            self._tables.write(events)


class ClickHouseSink(DynamicSink):
    """Writes the batches that come to a worker."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Partition:
        """One connection a worker."""
        return _Partition()


flow = Dataflow("usage")
messages = kop.input("messages", flow, brokers=[bootstrap()], topics=[TOPIC], batch_size=FLUSH_EVENTS)
events = op.map("events", messages.oks, lambda message: (str(message.partition), json.loads(message.value)))
batches = op.collect("batches", events, timedelta(seconds=FLUSH_SECONDS), FLUSH_EVENTS)
op.output("tables", batches, ClickHouseSink())
