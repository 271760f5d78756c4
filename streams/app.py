"""The Faust app: topics, agents and wiring, and nothing else."""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # batches run beside each other; threads inside one only wait
# A flush's frames come and go within a second: let go of their pages at once, which saves 250 MB of the worker's peak.
os.environ.setdefault("_RJEM_MALLOC_CONF", "background_thread:true,dirty_decay_ms:200,muzzy_decay_ms:0")

import asyncio
import contextlib
import ctypes
import logging
import logging.config
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.abc import MetaPathFinder
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import faust
from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaException
from yarl import URL

from schemas.errors import WattStreamError
from schemas.events import EVENT_TYPES, EventType
from schemas.settings import Settings, load
from schemas.versions import at
from streams import health
from streams.audit import Audit
from streams.deadletters import DeadLetters
from streams.dedupe import Seen
from streams.flush import Flush
from streams.ledger import Claim, Halt, Ledger, Position
from streams.log import Logs
from streams.polled import Run
from streams.sink import Sink
from streams.takes import Log, Takes
from streams.transport import Consumer, NoTables, PolledSchema, Transport

GROUP = "wattstream"
# Two decode while two write: the second flush thread bought 30 % on two cores. Takes wait for what runs in ClickHouse,
# so each topic has a thread for its own: one that waits must not hold up the flushes of the others.
THREADS = 2
# Of glibc's memory pools, of which each thread would have its own: 100 MB of the peak.
ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h
ADVISE_SECONDS = 5.0
# A topic that is made anew may be read for so long as if it were the old one.
WATCH_SECONDS = 2.0
WAIT_SECONDS = 1.0
WHEN_TOLD = "--when-told"

log = logging.getLogger("streams.app")


def create_app(
    settings: Settings,
    *,
    number: int = 1,
    version: int = 1,
    member: str | None = None,
    topic_ids: Mapping[str, str] | None = None,
) -> faust.App:
    """Worker ``number``: every topic's agent, in that version of it, hands its polls to that topic's sink.

    ``member`` is its name in the group (see `member_name`); without one, each start is a new member. ``topic_ids`` are
    those of Kafka before it joined.
    """
    brokers = [URL(f"kafka://{server}") for server in settings.bootstrap.split(",")]
    app = faust.App(
        GROUP,
        broker=brokers,
        broker_credentials=credentials(settings),
        datadir=str(_folder(settings, number)),
        web_bind="127.0.0.1",
        web_host="127.0.0.1",
        web_port=settings.port("worker" if number == 1 else f"worker-{number}"),
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_buffer_maxsize=16,
        consumer_max_fetch_size=4 << 20,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=50_000,
        # While ClickHouse is away nothing is fetched: that is no reason to leave the group.
        broker_max_poll_interval=86_400.0,
        broker_session_timeout=settings.group_timeout_seconds,
        broker_heartbeat_interval=settings.group_timeout_seconds / 6,
        broker_rebalance_timeout=2 * settings.group_timeout_seconds,
        consumer_group_instance_id=member,
        TableManager=NoTables,
    )
    app.transport = Transport(brokers, app)
    logs = Logs(settings)
    sinks = _sinks(app, settings, logs, version)
    for sink in sinks.values():
        _read(app, sink)
        app.task()(sink.run)  # pyright: ignore[reportArgumentType, reportCallIssue]
    _follow_assignments(app, sinks)
    _advise(app, sinks)
    _audit(app, sinks, settings.audit_seconds)
    _end_when_made_anew(app, logs, sinks.keys(), dict(topic_ids or {}))
    health.serve(app, sinks, logs, settings.standstill_seconds)
    _end_when_outdated(app, logs, version)
    return app


def member_name(settings: Settings, number: int, topic_ids: Mapping[str, str]) -> str:
    """What worker ``number`` of this home is called in its group, for as long as these are the topics.

    A killed one that is started again is given at once what it had (KIP-345, static membership), where Kafka would
    wait a group time-out for the one that it takes to be still there, and then move partitions of the others, too. But
    it is given just that, whatever there is to read by now: with other topics it needs another name. By a number drawn
    for the home: two of one name would push each other out for ever.
    """
    drawn = _folder(settings, number) / "member"
    if not drawn.exists():
        drawn.write_text(str(uuid.uuid4()))
    known = "".join(f"{topic}={topic_id};" for topic, topic_id in sorted(topic_ids.items()))
    return f"worker-{number}-{uuid.uuid5(uuid.NAMESPACE_OID, drawn.read_text() + known)}"


def _folder(settings: Settings, number: int) -> Path:
    folder = settings.home.absolute() / "workers" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def credentials(settings: Settings) -> faust.SSLCredentials | faust.SASLCredentials | None:
    """How Faust's own client reaches Kafka, by the settings that `Settings.kafka_client` gives to librdkafka."""
    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return None
    context = ssl.create_default_context(cafile=settings.kafka_ca_file) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=settings.kafka_username or "",
        password=settings.kafka_password.get_secret_value() if settings.kafka_password else "",
        ssl_context=context,
        mechanism=settings.kafka_sasl_mechanism,
    )


def _sinks(app: faust.App, settings: Settings, logs: Logs, version: int) -> dict[str, Sink]:
    worker = uuid.uuid4()
    connect = _once(partial(settings.clickhouse_client, "writer"))  # making a client takes the server three queries
    deadletters = DeadLetters(settings)
    decoders = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    writers = ThreadPoolExecutor(THREADS, thread_name_prefix="write")
    takers = ThreadPoolExecutor(len(EVENT_TYPES), thread_name_prefix="take")

    def sink(event_type: EventType) -> Sink:
        ledger, takes = Ledger(connect, event_type), Takes(connect, event_type, worker=worker)
        seen = Seen(settings.dedupe_bytes // len(EVENT_TYPES)) if settings.dedupe else None

        def take(partitions: Collection[int], ours: Callable[[], bool]) -> dict[int, Position | Exception]:
            if seen is not None:
                for partition in partitions:
                    seen.forget(partition)
            taken = take_once(partitions, ours)
            # The logs were asked before the claim: who was fenced by it may have gone on in between.
            halted = [partition for partition, outcome in taken.items() if isinstance(outcome, Halt)]
            return taken | (take_once(halted, ours) if halted else {})

        def take_once(partitions: Collection[int], ours: Callable[[], bool]) -> dict[int, Position | Exception]:
            told = logs.of(event_type.topic, partitions)
            if not ours():  # Kafka may have taken its time: to claim now would fence who has them
                return {}
            found = {partition: log for partition, log in told.items() if isinstance(log, Log)}
            untold = {partition: why for partition, why in told.items() if not isinstance(why, Log)}
            return {**untold, **takes.take(found, timeout_seconds=settings.clickhouse_timeout_seconds)}

        def held(claims: Sequence[Claim]) -> set[int]:
            return takes.held(claims, logs.ids([event_type.topic]).get(event_type.topic))

        return Sink(
            event_type,
            reader=_Reader(app),
            take=take,
            held=held,
            flush=Flush(event_type, ledger, seen, deadletters.publish),
            audit=Audit(event_type, connect, ledger, partial(logs.read, event_type.topic), dedupe=settings.dedupe).run,
            takers=takers,
            decoders=decoders,
            writers=writers,
            flush_seconds=settings.flush_seconds,
            flush_rows=settings.flush_rows,
            group_timeout_seconds=settings.group_timeout_seconds,
        )

    return {event_type.topic: sink(event_type) for event_type in at(version)}


def _once(connect: Callable[[], Client]) -> Callable[[], Client]:
    """The same client for all threads."""
    lock, connected = threading.Lock(), cache(connect)

    def client() -> Client:
        with lock:
            return connected()

    return client


class _Reader:
    """The app's consumer, which Faust makes only when the worker starts."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def start_run(self, run: Run) -> None:
        await cast(Consumer, self._app.consumer).start_run(run)


def _read(app: faust.App, sink: Sink) -> None:
    topic = app.topic(sink.event_type.topic, schema=PolledSchema(), acks=False)

    @app.agent(topic, name=f"read-{sink.event_type.name}", concurrency=1)
    async def read(stream: Any) -> None:
        async for polled in stream:
            sink.offer(polled)


def _follow_assignments(app: faust.App, sinks: dict[str, Sink]) -> None:
    async def assigned(_: Any, partitions: Any, **__: Any) -> None:
        for topic, sink in sinks.items():
            sink.assign({tp.partition for tp in partitions if tp.topic == topic})

    async def revoked(_: Any, partitions: Any, **__: Any) -> None:
        for sink in sinks.values():
            sink.revoke()

    app.on_partitions_assigned.connect(assigned, weak=False)  # pyright: ignore[reportArgumentType]
    app.on_partitions_revoked.connect(revoked, weak=False)  # pyright: ignore[reportArgumentType]


def _advise(app: faust.App, sinks: dict[str, Sink]) -> None:
    @app.timer(ADVISE_SECONDS)
    async def advise() -> None:
        positions = {
            (topic, partition): position
            for topic, sink in sinks.items()
            for partition, position in sink.progress.positions.items()
            if partition in sink.claims
        }
        if positions:
            with contextlib.suppress(Exception):  # advice; a timer that raises would end the worker
                await cast(Consumer, app.consumer).advise(positions)


def _audit(app: faust.App, sinks: dict[str, Sink], seconds: float) -> None:
    """Each topic's in turn: all at once kept a worker from flushing for 8 s on a busy machine."""
    turns = cycle(sinks.values())

    @app.timer(seconds / len(sinks))
    async def audit() -> None:
        next(turns).audit_soon()


def _end_when_made_anew(app: faust.App, logs: Logs, topics: Collection[str], known: dict[str, str]) -> None:
    """A rebalance while a topic isn't there gives its partitions to nobody, also once it is there again.

    And a fetcher notices by itself only where the new log is shorter than what was read of the old one. A worker that
    is started again takes its partitions, and finds out.
    """

    @app.timer(WATCH_SECONDS)
    async def watch() -> None:
        with contextlib.suppress(KafkaException):  # Kafka is away: asked again soon
            for topic, topic_id in (await asyncio.to_thread(logs.ids, topics)).items():
                if known.setdefault(topic, topic_id) != topic_id:
                    _end("%s was made anew: the worker ends, to be given its partitions again", topic)


def _end_when_outdated(app: faust.App, logs: Logs, version: int) -> None:
    """Agents follow their topics for ever: whoever started this worker starts it again, with the topics in use."""

    @app.timer(ADVISE_SECONDS)
    async def look() -> None:
        with contextlib.suppress(WattStreamError, KafkaException):  # Kafka is away: that tells nothing
            used, _ = await asyncio.get_running_loop().run_in_executor(None, logs.version)
            if used != version:
                _end("the topics of version %d are in use now, these are of %d: the worker ends", used, version)


def _end(why: str, *about: object) -> None:
    """As in `main`; whoever started this worker starts it again."""
    log.warning(why, *about)
    logging.shutdown()
    os._exit(0)


class NoPandas(MetaPathFinder):
    """Pyarrow imports pandas where it is installed, at the first flush and for 1.3 s; nothing here uses it."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Raise, as if it weren't installed, which pyarrow is prepared for."""
        if fullname == "pandas":
            raise ModuleNotFoundError("No module named 'pandas': a worker does without", name=fullname)


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "streams.app.Line", "format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["out"]},
    # What these say of a server that is away, the sinks say once.
    "loggers": {"streams": {"level": "INFO"}}
    | {name: {"level": "ERROR"} for name in ("aiokafka", "clickhouse_connect", "urllib3")},
}


class Line(logging.Formatter):
    """Times in UTC, as everywhere."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def main() -> None:
    """Run worker WATTSTREAM_WORKER (default 1) until it is told to stop.

    With ``--when-told`` it starts when a line comes at its standard input, having imported all; none comes: it ends.
    Ends at once, also while a thread waits for ClickHouse: a start never relies on how the last one ended.
    """
    sys.meta_path.insert(0, NoPandas())
    if WHEN_TOLD in sys.argv and not sys.stdin.readline():
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's alone
        mallopt(_M_ARENA_MAX, ARENAS)
    number = int(os.environ.get("WATTSTREAM_WORKER", "1"))
    logging.config.dictConfig(LOGGING)
    code: object = 1
    try:
        settings = load()
        logs = Logs(settings)
        version = _wait_for_topics(settings, logs)
        ids = logs.ids(topics := [event_type.topic for event_type in at(version)])
        member = member_name(settings, number, ids) if ids.keys() == set(topics) else None
        faust.Worker(
            create_app(settings, number=number, version=version, member=member, topic_ids=ids),
            loglevel="INFO",
            logging_config=LOGGING,
            redirect_stdouts=False,
        ).execute_from_commandline()
    except SystemExit as ended:
        code = ended.code
    except WattStreamError as error:
        log.error("%s", error)
    except Exception:
        log.exception("the worker ends")
    logging.shutdown()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _wait_for_topics(settings: Settings, logs: Logs) -> int:
    """The version in use. Faust dies of a Kafka that is away, and skips a topic that is missing without a word."""
    told = ""
    while True:
        try:
            version, missing = logs.version()
            if not missing:
                return version
            why = f"Kafka at {settings.bootstrap} has no {', '.join(missing)}: `wattstream migrate` creates them"
        except WattStreamError as error:
            why = str(error)
        if why != told:
            log.warning("%s; waiting", why)
            told = why
        time.sleep(WAIT_SECONDS)


if __name__ == "__main__":
    main()
