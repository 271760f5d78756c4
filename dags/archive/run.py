"""Archives what the log holds and the archive doesn't, reads files again, and says how far the archive reaches."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from dags.archive.files import ArchiveFile
from dags.archive.kafka import Bounds, KafkaLogs, TopicLog
from dags.archive.store import Archive, Chain, Missing, missing
from schemas.errors import WattStreamError
from schemas.events import BY_TOPIC, OUTPUT_TOPICS, topic_named
from schemas.progress import Progress, silent
from schemas.settings import Settings
from schemas.versions import at, in_use, versions

TOPICS = (*BY_TOPIC, *OUTPUT_TOPICS)
"""Of the first version."""

WARN_AHEAD = timedelta(days=1)
"""Retention that will pass what isn't archived sooner than this is told."""
RECHECK_AHEAD = timedelta(days=2)
"""Files that retention will pass sooner are read again: a daily run does it twice while Kafka can mend them."""

_MENDED = (
    "the next `wattstream archive` fetches its offsets again while Kafka holds them; after that, bring it back from a "
    "copy of the archive"
)


@dataclass(frozen=True)
class Reach:
    """How far the archive of a partition reaches, against its log; offsets, ends not included.

    ``archived_to``: everything before it, from ``archived_from`` on, is in files that were read back and compared.
    ``waiting``: offsets of the log past it. ``expires``: when retention may pass the first of them.
    """

    archived_from: int | None
    archived_to: int | None
    log_from: int
    log_to: int
    waiting: int
    expires: str | None


@dataclass
class Report:
    """What a run did and found. ``files``, ``messages``, ``bytes``: added. ``checked``: files read again."""

    files: int = 0
    messages: int = 0
    bytes: int = 0
    checked: int = 0
    by_partition: dict[str, Reach] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the archive is whole as far as it reaches."""
        return not self.problems


def archive(
    settings: Settings, topics: Sequence[str] = (), *, until: datetime | None = None, progress: Progress = silent
) -> Report:
    """Add what is missing, all topics or those named, of what arrived before ``until``; then look at the whole.

    A partition in trouble doesn't keep the others from being archived.

    :raises WattStreamError: where Kafka does not answer, or another run is at it.
    """
    logs, store, report = KafkaLogs(settings), Archive(settings.archive_folder), Report()
    version = in_use(settings)
    found = [log for topic in named(topics, version) if (log := _log(logs, topic, asked=bool(topics))) is not None]
    with ExitStack() as locks:
        work: list[tuple[TopicLog, int, Missing]] = []
        for log in found:
            locks.enter_context(store.lock(log.topic))
            ends = logs.ends_before(log, until) if until else {p: bounds.end for p, bounds in log.partitions.items()}
            for partition, bounds in log.partitions.items():
                chain = store.chain(log.topic, partition)
                if not _contradictions(f"{log.topic}/{partition}", chain, log, bounds):
                    work += [(log, partition, one) for one in missing(chain, bounds.start, ends[partition])]
        written = _Writer(logs, store, report, progress).write(work)
        now = datetime.now(UTC)
        for log in found:
            _recheck(store, log, written, now, report, progress)
            _look(logs, log, _chains(store, log.topic), now, report)
    return report


def look(settings: Settings, topics: Sequence[str] = ()) -> Report:
    """How far the archive reaches, by its footers; nothing is written."""
    logs, store, report = KafkaLogs(settings), Archive(settings.archive_folder), Report()
    for topic in named(topics, in_use(settings)):
        chains = _chains(store, topic)  # before the log: a run may be at it, and the log ends after what it wrote
        log = _log(logs, topic, asked=bool(topics))
        if log is not None:
            _look(logs, log, chains, datetime.now(UTC), report)
    return report


def verify(settings: Settings, topics: Sequence[str] = (), *, progress: Progress = silent) -> Report:
    """Read every file again and compare; Kafka is not asked.

    :raises WattStreamError: where there is no archive.
    """
    store, report = Archive(settings.archive_folder), Report()
    kept = versions(path.name for path in store.folder.glob("*"))  # each version of a topic is a folder
    wanted = dict.fromkeys(topic for version in {1, *kept} for topic in named(topics, version))
    chains = {place: store.chain(*place) for place in store.partitions(wanted)}
    if not any(chain.files or chain.damaged for chain in chains.values()):
        raise WattStreamError(
            f"There is no archive in {store.folder.resolve()}: `wattstream archive` makes one; "
            "--home or WATTSTREAM_ARCHIVE names another."
        )
    total = sum(len(chain.files) for chain in chains.values())
    for (topic, partition), chain in chains.items():
        report.problems += _damages(chain) + _gaps(f"{topic}/{partition}", chain)
        for file in chain.files:
            _check(file, report)
            progress("reading the archive, files", report.checked, total)
    return report


def named(topics: Sequence[str], version: int) -> Sequence[str]:
    """The topics meant, in that version: all where none is named; `tokens` is wattstream.tokens.v1, or its next.

    :raises UsageError: where there is no such topic.
    """
    there = (*(event_type.topic for event_type in at(version)), *OUTPUT_TOPICS)
    return list(dict.fromkeys(topic_named(topic, there) for topic in topics)) or there


class _Writer:
    """Reads what is missing and writes it, telling how far it is."""

    def __init__(self, logs: KafkaLogs, store: Archive, report: Report, progress: Progress) -> None:
        self._logs, self._store, self._report, self._progress = logs, store, report, progress

    def write(self, work: list[tuple[TopicLog, int, Missing]]) -> set[ArchiveFile]:
        """What was written; trouble goes into the report."""
        written: set[ArchiveFile] = set()
        total = sum(wanted.end - wanted.start for _, _, wanted in work)
        done = 0
        for log, partition, wanted in work:
            batches = self._read(log, partition, wanted, done, total)
            try:
                today = datetime.now(UTC).date()
                for file in self._store.write(log.topic, log.topic_id, partition, wanted, batches, today):
                    written.add(file)
                    self._report.files += 1
                    self._report.messages += file.stretch.messages
                    self._report.bytes += file.path.stat().st_size
            except WattStreamError as error:
                self._report.problems.append(str(error))
            done += wanted.end - wanted.start
            self._progress("archiving, offsets", done, total)
        return written

    def _read(self, log: TopicLog, partition: int, wanted: Missing, done: int, total: int) -> Iterator[pa.RecordBatch]:
        for batch in self._logs.read(log.topic, partition, wanted.start, wanted.end):
            yield batch
            read = batch.column("offset")[-1].as_py() + 1 - wanted.start
            self._progress("archiving, offsets", done + read, total)


def _log(logs: KafkaLogs, topic: str, *, asked: bool) -> TopicLog | None:
    log = logs.topic(topic)
    if log is None and asked:
        raise WattStreamError(f"Kafka has no topic {topic}: `wattstream migrate` makes it.")
    return log


def _recheck(
    store: Archive, log: TopicLog, written: set[ArchiveFile], now: datetime, report: Report, progress: Progress
) -> None:
    """Read the files again that Kafka could still mend, but not for long."""
    limit = int((now + RECHECK_AHEAD).timestamp() * 1000) - (log.retention_ms or 0)
    due = [
        file
        for partition, bounds in log.partitions.items()
        for file in store.chain(log.topic, partition).files
        if file not in written
        and file.stretch.end > bounds.start
        and (log.retention_bytes is not None or (log.retention_ms is not None and (file.stretch.newest or 0) < limit))
    ]
    for done, file in enumerate(due, 1):
        _check(file, report)
        progress(f"reading {log.topic} again, files", done, len(due))


def _check(file: ArchiveFile, report: Report) -> None:
    problem = file.problem()
    report.checked += 1
    if problem:
        stretch = file.stretch
        report.problems.append(
            f"{file.path} {problem}. It holds offsets {stretch.start} to {stretch.end - 1}. Move it away: {_MENDED}."
        )


def _chains(store: Archive, topic: str) -> dict[int, Chain]:
    return {partition: store.chain(topic, partition) for _, partition in store.partitions([topic])}


def _look(logs: KafkaLogs, log: TopicLog, chains: dict[int, Chain], now: datetime, report: Report) -> None:
    for partition, bounds in log.partitions.items():
        name = f"{log.topic}/{partition}"
        chain = chains.get(partition, Chain(()))
        contradictions = _contradictions(name, chain, log, bounds)
        report.problems += contradictions + _gaps(name, chain)
        reach = bounds.start if chain.reach is None else chain.reach
        if chain.end is not None and chain.end < bounds.start and not contradictions:
            report.problems.append(_expired(name, chain.end, bounds.start))
        waiting = max(0, bounds.end - max(reach, bounds.start))
        expires = None
        if waiting and not contradictions:
            expires = _expiry(logs, log, partition, max(reach, bounds.start), bounds, now, report)
        report.by_partition[name] = Reach(chain.start, chain.reach, bounds.start, bounds.end, waiting, expires)


def _expiry(
    logs: KafkaLogs, log: TopicLog, partition: int, first: int, bounds: Bounds, now: datetime, report: Report
) -> str | None:
    """When retention may pass offset ``first``, which isn't archived; a warning where that is soon."""
    if log.retention_ms is None and log.retention_bytes is None:
        return None
    arrived_ms = logs.arrival(log.topic, partition, first, bounds.end)
    if arrived_ms is None:
        return None
    arrived = datetime.fromtimestamp(arrived_ms / 1000, UTC)
    name = f"{log.topic}/{partition}"
    # By size it can't be foretold: what a daily run has left behind is told.
    if log.retention_bytes is not None and now - arrived > WARN_AHEAD:
        report.warnings.append(
            f"{name}: retention.bytes={log.retention_bytes} may pass offset {first}, of {arrived:%Y-%m-%d %H:%M} UTC, "
            "at any time, and it is not archived: run `wattstream archive`."
        )
    if log.retention_ms is None:
        return None
    # Years that no date has: as good as never.
    expires = arrived + timedelta(milliseconds=min(log.retention_ms, 10**14))
    if expires - now < WARN_AHEAD:
        report.warnings.append(
            f"{name}: offset {first} is not archived and may expire from Kafka at {expires:%Y-%m-%d %H:%M} UTC: "
            "run `wattstream archive`, or raise the topic's retention.ms."
        )
    return expires.isoformat(timespec="seconds")


def _contradictions(name: str, chain: Chain, log: TopicLog, bounds: Bounds) -> list[str]:
    """Why nothing may be added to the chain."""
    found = _damages(chain)
    if chain.topic_ids - {log.topic_id}:
        found.append(
            f"{name} was made anew in Kafka (its id is {log.topic_id}, the archive's {min(chain.topic_ids)}): move the "
            "archive's folder of the topic elsewhere, and keep it, to begin another."
        )
    elif chain.end is not None and chain.end > bounds.end:
        found.append(
            f"{name}: the log ends at {bounds.end}, before the archive, which reaches to {chain.end}: Kafka "
            "lost what it had acknowledged. What comes now takes offsets a second time: see to the brokers first, then "
            "move the archive's folder of the topic elsewhere, and keep it, to begin another."
        )
    return found


def _damages(chain: Chain) -> list[str]:
    return [f"{damage}. Move it away: {_MENDED}." for damage in chain.damaged]


def _gaps(name: str, chain: Chain) -> list[str]:
    return [
        _expired(name, gap.start, gap.end)
        if gap.expired
        else f"{name}: what held offsets {gap.start} to {gap.end - 1} is gone: {_MENDED}."
        for gap in chain.gaps()
    ]


def _expired(name: str, start: int, end: int) -> str:
    return (
        f"{name}: offsets {start} to {end - 1} expired from Kafka before they were archived, and are lost to a replay. "
        "Raise the topic's retention.ms, see that the daily run works (wattstream up starts Dagster), and to accept "
        "the loss move the files before it elsewhere."
    )
