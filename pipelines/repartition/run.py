"""`wattstream repartition`: the next version of all input topics, with other partitions, filled from the one in use.

1. **Topics** of the next version are made, with the producers' clock: by it they are known to be no version in use.
2. **Copy** the log and **replay** the copy into a second database, while everything goes on.
3. **Close** the old topics: Kafka refuses what is sent to them, so that nothing it acknowledges is missed.
4. **Catch up**: copy and replay the rest, let the workers finish theirs, and hold both databases against each other.
5. **Exchange** the tables under claims on all old partitions (pipelines/replay/swap.py), and in the midst of it take
   the new topics into use, by giving them the broker's clock. Workers see it, end and are started with the new topics.

Killed before 5 it goes on where it was, or is given up; within, it is ended. What fails before 5 opens the old topics
again.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.repartition import topics
from pipelines.repartition.copying import FOLDER, Copy
from pipelines.replay import swap
from pipelines.replay.compare import Comparison, compare
from pipelines.replay.fill import ends_of, fill
from pipelines.replay.run import cut_short, differ, ends_of_logs, logs_of, prepare, told
from pipelines.replay.sources import FromArchive, FromKafka, Source
from schemas.brokers import why
from schemas.errors import UsageError, WattStreamError
from schemas.events import EventType
from schemas.progress import Progress
from schemas.settings import DATABASE, Settings
from schemas.versions import at, version_in_use, versions
from streams.failpoints import failpoint
from streams.swaps import REPARTITIONED, Intent, open_intent

Say = Callable[[str], None]

_LIST_SECONDS = 10.0
_STILL_SECONDS = 1.0
"""What was on its way when the topics were closed is in the log by then, or refused."""
_STALL_SECONDS = 60.0
_LOOK_SECONDS = 0.25


@dataclass
class Report:
    """``version`` is in use now; the rest is 0 or empty where nothing was to be done, or an exchange to be ended."""

    version: int
    partitions: int
    messages: int = 0
    misplaced: int = 0
    """Messages that were in another partition than Kafka's own partitioner gives their keys."""
    events: int = 0
    rows: int = 0
    seconds: float = 0.0
    tables: list[Comparison] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """What the command was told. ``partitions`` may be None where an unfinished version has them already."""

    partitions: int | None = None
    archived: bool = False
    fresh: bool = False
    accept_differences: bool = False
    accept_misplaced: bool = False
    give_up: bool = False


def repartition(settings: Settings, choices: Choices, *, say: Say, progress: Progress) -> Report:
    """Give all input topics other partitions, or go on with it.

    :raises UsageError: where the number of partitions isn't given, or isn't the one that was begun with.
    :raises WattStreamError: where a part doesn't answer, the log has not all that the tables have, or tables differ.
    """
    begin = time.monotonic()
    admin = AdminClient(settings.kafka_client() | {"log_level": 0})
    try:
        with swap.alone(settings), closing(settings.clickhouse_client("writer")) as client, told(settings):
            report = _Repartition(settings, choices, admin, client, say, progress).run()
    except KafkaException as error:
        raise WattStreamError(f"Kafka at {settings.bootstrap}: {why(settings, error)}") from error
    report.seconds = time.monotonic() - begin
    return report


class _Repartition:
    def __init__(
        self,
        settings: Settings,
        choices: Choices,
        admin: AdminClient,
        client: Client,
        say: Say,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._choices = choices
        self._admin = admin
        self._client = client
        self._say = say
        self._progress = progress
        self._log = FromKafka(settings)
        self._source: Source = FromArchive(settings) if choices.archived else self._log
        known = admin.list_topics(timeout=_LIST_SECONDS).topics
        self._count = {name: len(topic.partitions) for name, topic in known.items()}
        self._in_use = version_in_use(admin, known)

    def run(self) -> Report:
        intent = open_intent(self._client)
        if intent is not None and intent.replayed != REPARTITIONED:
            raise WattStreamError(cut_short(intent))
        if intent is not None and swap.exchanged(self._client, intent):
            # The newest version is the one whose tables are being exchanged, be it in use already or not.
            newest = max(versions(self._count))
            self._end(intent, at(newest - 1), at(newest))
            return Report(newest, self._count[at(newest)[0].topic])
        if intent is not None:
            swap.abandon(self._client, intent)
        old, new = at(self._in_use), at(self._in_use + 1)
        missing = [of.topic for of in old if of.topic not in self._count]
        if missing:
            raise WattStreamError(f"Kafka has no topic {', '.join(missing)}: run wattstream migrate.")
        begun = [of.topic for of in new if of.topic in self._count]
        if self._choices.give_up:
            return self._give_up(old, begun)
        if self._choices.fresh or not begun:
            if len(begun) == len(old):  # else they were never closed, and how large a message may be is in these alone
                topics.open_again(self._admin, self._settings, old)
            topics.drop(self._admin, begun)
            shutil.rmtree(self._settings.home / FOLDER, ignore_errors=True)
            begun = []
        partitions = self._partitions(old, begun)
        if partitions is None:
            return Report(self._in_use, self._count[old[0].topic])
        # What served before an earlier exchange goes with the first step of the next.
        prepare(self._client, self._settings, REPARTITIONED, fresh=not begun)
        topics.make(self._admin, self._settings, old, new, partitions)
        return self._carry_over(old, new, partitions)

    def _give_up(self, old: Sequence[EventType], begun: Sequence[str]) -> Report:
        if len(begun) == len(old):  # else they were never closed
            topics.open_again(self._admin, self._settings, old)
        topics.drop(self._admin, begun)
        shutil.rmtree(self._settings.home / FOLDER, ignore_errors=True)
        if begun:
            self._client.command(f"DROP DATABASE IF EXISTS {REPARTITIONED} SYNC")
        return Report(self._in_use, self._count[old[0].topic])

    def _partitions(self, old: Sequence[EventType], begun: Sequence[str]) -> int | None:
        """How many there are to be; None where there are as many already."""
        asked = self._choices.partitions
        if begun:
            count = self._count[begun[0]]
            if asked not in (None, count):
                raise UsageError(
                    f"{begun[0]} was begun with {count} partitions: give --partitions {count} to go on, or --fresh too "
                    f"to begin anew with {asked}."
                )
            return count
        if asked is None:
            raise UsageError("Say how many: --partitions N.")
        return None if {self._count[of.topic] for of in old} == {asked} else asked

    def _carry_over(self, old: Sequence[EventType], new: Sequence[EventType], partitions: int) -> Report:
        copies = self._copies(old, new, partitions)
        try:
            intent, tables = self._made_alike(old, new, copies)
        except BaseException:  # also where a run of before, which was killed, had closed them
            topics.open_again(self._admin, self._settings, old)
            raise
        self._end(intent, old, new)
        events, rows = self._client.query("SELECT sum(events), sum(rows) FROM ingest_ranges").result_rows[0]
        messages, misplaced = sum(copy.messages for copy in copies), sum(copy.misplaced for copy in copies)
        return Report(new[0].version, partitions, messages, misplaced, events, rows, tables=tables)

    def _made_alike(
        self, old: Sequence[EventType], new: Sequence[EventType], copies: Sequence[Copy]
    ) -> tuple[Intent, list[Comparison]]:
        """Copy and replay, close the old topics, then the rest of both; the swap that is begun, and the comparison."""
        self._copy(copies)
        misplaced = sum(copy.misplaced for copy in copies)
        if misplaced and not self._choices.accept_misplaced:
            raise WattStreamError(
                f"{misplaced} messages are in another partition than Kafka's own clients give their keys (murmur2). "
                "Were their producers to go on so, an event sent again would not be known again after this. Let them "
                "use Kafka's partitioner (librdkafka: partitioner=murmur2_random); if they do, or these were no "
                "events, give --accept-misplaced."
            )
        self._replay(new)
        failpoint("before-close")
        topics.close(self._admin, old)
        self._say(f"{old[0].topic} and the others are closed: producers are refused until the new ones are in use")
        failpoint("after-close")
        self._stand_still(old)
        self._copy(copies)
        if not self._choices.accept_differences:
            self._wait_for_workers({place: last for copy in copies for place, last in copy.last.items()})
        self._replay(new)
        tables = compare(self._client, REPARTITIONED, None, self._progress)
        if not self._choices.accept_differences and not all(table.same for table in tables):
            raise WattStreamError(
                f"{differ(tables)} Where Kafka has not everything any more, give --from archive with --fresh."
            )
        intent = swap.begin(self._client, REPARTITIONED)
        try:
            swap.claim_all(self._settings, logs_of(self._source, old), self._say)
        except BaseException:
            swap.abandon(self._client, intent)
            raise
        return intent, tables

    def _end(self, intent: Intent, old: Sequence[EventType], new: Sequence[EventType]) -> None:
        def then() -> None:
            topics.take_into_use(self._admin, old, new)
            failpoint("after-take-into-use")

        swap.exchange(self._client, intent, self._say, then)
        self._say(f"{new[0].topic} and the others are in use: start producers of your own with these")

    def _copies(self, old: Sequence[EventType], new: Sequence[EventType], partitions: int) -> list[Copy]:
        return [
            Copy(self._settings, self._source, before, after, partitions, next(iter(self._logs_of(after))))
            for before, after in zip(old, new, strict=True)
        ]

    def _logs_of(self, event_type: EventType) -> set[str]:
        return {log.topic_id for log in self._log.logs(event_type.topic).values()}

    def _copy(self, copies: Sequence[Copy]) -> None:
        for copy in copies:
            copy.advance(self._progress)

    def _replay(self, new: Sequence[EventType]) -> None:
        ends = ends_of_logs(logs_of(self._log, new))
        fill(self._settings, REPARTITIONED, self._log, new, ends, self._progress)

    def _stand_still(self, old: Sequence[EventType]) -> None:
        since, ends = time.monotonic(), ends_of_logs(logs_of(self._log, old))
        until = since + _STALL_SECONDS
        while time.monotonic() - since < _STILL_SECONDS:
            time.sleep(_LOOK_SECONDS)
            now = ends_of_logs(logs_of(self._log, old))
            if now != ends:
                since, ends = time.monotonic(), now
                if since > until:
                    raise WattStreamError(
                        "The old topics are closed, but their logs still grow: is the limit overridden?"
                    )

    def _wait_for_workers(self, ends: dict[tuple[str, int], int]) -> None:
        total, best, moved = sum(ends.values()), -1, time.monotonic()
        while True:
            found = ends_of(self._settings, DATABASE)
            done = sum(min(end, found.get(place, 0)) for place, end in ends.items())
            self._progress("waiting for the workers, offsets", done, total)
            if done >= total:
                return
            if done > best:
                best, moved = done, time.monotonic()
            elif time.monotonic() - moved > _STALL_SECONDS:
                raise WattStreamError(
                    f"The tables lack {total - done} offsets of the log, and no worker has written for "
                    f"{_STALL_SECONDS:.0f} s, so that they can't be compared. Is one running (wattstream status)? Then "
                    "run this again; --accept-differences does without comparing."
                )
            time.sleep(_LOOK_SECONDS)
