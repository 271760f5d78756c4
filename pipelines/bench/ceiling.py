"""The ceiling: a confluent-kafka loop with the same decoding, rollups and inserts; no Faust, ledger, fence or dedupe.

Prints its CPU by step when it is told to stop. Tuned as far as we could: queued.max.messages.kbytes decides most.
"""

import json
import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import polars as pl
from confluent_kafka import Consumer, Message, TopicPartition

from schemas.envelope import content_type, headers_of
from schemas.events import TOKENS
from schemas.settings import Settings, load
from streams.inserts import Inserts
from streams.intake import Intake, keyed
from streams.polled import Polled, Run
from streams.rollup import roll_up

POLL_MESSAGES = 25_000
# Of large messages fewer: what one decoding takes at the worker too, so that a flush ends near its size.
POLL_BYTES = 4 << 20
# Polls that may wait for a decoder: each of the two has the next one at hand.
DECODING = 4
_LOCAL = threading.local()


class Steps:
    """CPU seconds of each step, over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add what the block costs this thread."""
        start = time.thread_time()
        yield
        self.seconds[name] += time.thread_time() - start


def main() -> None:
    """Read the tokens topic from its start and write rows and rollups until SIGTERM."""
    settings = load()
    steps = Steps()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    consumer = Consumer(
        settings.kafka_client(group_id="ceiling", enable_auto_commit=False)
        | {"queued.max.messages.kbytes": 1 << 20, "fetch.message.max.bytes": 4 << 20, "check.crcs": False}
    )
    partitions = range(settings.partitions)
    consumer.assign([TopicPartition(TOKENS.topic, partition, 0) for partition in partitions])
    decoders, writers = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
    decoding: list[tuple[int, Future[Intake]]] = []
    writing: list[Future[None]] = []
    since, poll_messages = time.monotonic(), 100
    while not stop.is_set():
        with steps("fetch"):
            messages = consumer.consume(poll_messages, timeout=0.1)
            polls = _polls(messages)
        if messages:
            mean = sum(len(message) for message in messages) / len(messages)
            poll_messages = max(1, min(POLL_MESSAGES, int(POLL_BYTES / mean)))
        decoding += [(polled.run.partition, decoders.submit(_decode, steps, polled)) for polled in polls]
        # Fetching is so much faster than decoding that it would queue the whole log before the first flush.
        if len(behind := [future for _, future in decoding if not future.done()]) > DECODING:
            behind[0].result()
        batch = _flush(decoding, settings.flush_rows)
        full = sum(intake.events for _, intake in batch) >= settings.flush_rows
        if full or (batch and time.monotonic() - since > settings.flush_seconds):
            while len(writing) > 1:
                writing.pop(0).result()
            writing.append(writers.submit(_write, settings, steps, batch))
            decoding, since = decoding[len(batch) :], time.monotonic()
    for future in writing:
        future.result()
    print(json.dumps(steps.seconds), flush=True)


def _flush(decoding: list[tuple[int, Future[Intake]]], rows: int) -> list[tuple[int, Intake]]:
    """What is decoded, in order, until there are rows enough: a worker's inserts are no larger."""
    batch: list[tuple[int, Intake]] = []
    for partition, future in decoding:
        if rows <= 0 or not future.done():
            break
        batch.append((partition, future.result()))
        rows -= batch[-1][1].events
    return batch


def _polls(messages: list[Message]) -> list[Polled]:
    """What a record says in a call of its own costs 0.5 us or more each: only its value and partition are asked for.

    The first of a poll tells the encoding of all, the last the arrival; offsets are counted where there is no gap.
    """
    by_partition: dict[int, list[Message]] = defaultdict(list)
    for message in messages:
        by_partition[message.partition() or 0].append(message)
    return [
        Polled(
            run=Run(TOKENS.topic, partition, 0),
            expected=0,
            values=[m.value() for m in found],
            keys=[None] * len(found),
            content_types=[content_type(headers_of(found[0]))] * len(found),
            offsets=_offsets(found),
            arrived=[found[-1].timestamp()[1]] * len(found),
        )
        for partition, found in by_partition.items()
    ]


def _offsets(found: list[Message]) -> list[int]:
    first, last = found[0].offset() or 0, found[-1].offset() or 0
    whole = last - first + 1 == len(found)
    return list(range(first, last + 1)) if whole else [m.offset() or 0 for m in found]


def _decode(steps: Steps, polled: Polled) -> Intake:
    with steps("decode"):
        return keyed(TOKENS, polled)


def _write(settings: Settings, steps: Steps, batch: list[tuple[int, Intake]]) -> None:
    frames = [intake.frame.with_columns(topic_partition=pl.lit(partition, pl.UInt16)) for partition, intake in batch]
    frame = pl.concat(frames)
    with steps("rollup"):
        rollups = roll_up(TOKENS.name, frame)
    with steps("insert"):
        inserts = _inserts(settings)
        inserts.run(TOKENS.name, frame)
        for table, rows in rollups.items():
            inserts.run(table, rows.with_columns(upto=pl.lit(0, pl.Int64)))


def _inserts(settings: Settings) -> Inserts:
    """One client a thread."""
    if not hasattr(_LOCAL, "inserts"):
        _LOCAL.inserts = Inserts(settings.clickhouse_client("writer"))
    return _LOCAL.inserts


if __name__ == "__main__":
    main()
