"""Reads the dead letters: what could not be used, why, and whether it was sent again."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple, Self

import polars as pl
from clickhouse_connect.driver.exceptions import Error as ClickHouseError

from schemas.errors import UsageError, WattStreamError
from schemas.events import name_of, topic_named
from schemas.settings import Settings, User

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# They travel in the address of a request: some 8 KB of it, and servers take 16 KB and more.
_POSITIONS_PER_QUERY = 200
# Payloads of one query; one alone may be as large as a message.
_BYTES_PER_QUERY = 32 << 20

_RETRIES = """
LEFT JOIN (
    SELECT topic, topic_partition, offset, place, arrived, count() AS retries, max(retried) AS last_retried,
        argMax(new_offset, retried) AS last_offset
    FROM deadletter_retries GROUP BY topic, topic_partition, offset, place, arrived
) AS sent USING (topic, topic_partition, offset, place, arrived)
"""
_CHOSEN = """
WHERE ({topic:String} = '' OR topic = {topic:String}) AND ({reason:String} = '' OR reason = {reason:String})
    AND arrived >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
"""
_POSITION = "concat(topic, '/', toString(topic_partition), '/', toString(offset), '/', toString(place))"
_COLUMNS = """
topic, topic_partition, offset, place, toUnixTimestamp64Milli(arrived) AS arrived_ms, reason, detail, content_type, key
"""
_RETRIED = "retries, toUnixTimestamp64Milli(last_retried) AS retried_ms, last_offset"
_GROUPS = f"""
SELECT topic, reason, count() AS letters, countIf(retries > 0) AS retried,
    toUnixTimestamp64Milli(min(arrived)) AS first_ms, toUnixTimestamp64Milli(max(arrived)) AS last_ms
FROM deadletters {_RETRIES} {_CHOSEN} GROUP BY topic, reason ORDER BY letters DESC, topic, reason
"""  # noqa: S608
_NEWEST = f"""
SELECT {_COLUMNS}, {_RETRIED} FROM deadletters {_RETRIES} {_CHOSEN}
ORDER BY arrived DESC, topic, topic_partition, offset DESC, place DESC LIMIT {{limit:UInt64}}
"""  # noqa: S608
_ONE = f"""
SELECT {_COLUMNS}, {_RETRIED}, payload FROM deadletters {_RETRIES}
WHERE topic = {{topic:String}} AND topic_partition = {{partition:UInt16}} AND offset = {{offset:Int64}}
    AND place = {{place:UInt32}}
ORDER BY arrived DESC LIMIT 1
"""  # noqa: S608
_SELECTED = """
SELECT toString(topic) AS topic, topic_partition, offset, place, toUnixTimestamp64Milli(arrived) AS arrived_ms,
    length(payload) AS bytes, retries
FROM deadletters {retries} {chosen}
ORDER BY deadletters.topic, topic_partition, offset, place, arrived
LIMIT 1 BY topic, topic_partition, offset, place, arrived
"""
# The set of offsets is there for speed alone: it halves the time, since has() compares each row with each tuple.
_BATCH = f"""
SELECT {_COLUMNS}, payload FROM deadletters
WHERE topic = {{topic:String}} AND topic_partition = {{partition:UInt16}}
    AND offset BETWEEN {{first:Int64}} AND {{last:Int64}} AND offset IN (SELECT arrayJoin({{offsets:Array(Int64)}}))
    AND has(arrayZip({{offsets:Array(Int64)}}, {{places:Array(UInt32)}}, {{arrived:Array(Int64)}}),
        (offset, place, toUnixTimestamp64Milli(arrived)))
ORDER BY offset, place, arrived LIMIT 1 BY offset, place, arrived
"""  # noqa: S608
_TOPICS = "SELECT DISTINCT toString(topic) AS topic FROM deadletters"


class Position(NamedTuple):
    """Where a dead letter was read: topic, partition, offset of the message, place in it from 0."""

    topic: str
    partition: int
    offset: int
    place: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """``topic/partition/offset/place``, the topic by its full name or by that of its event type.

        :raises UsageError: where it is none.
        """
        found = re.fullmatch(r"([^/]+)/(\d{1,5})/(\d{1,18})/(\d{1,9})", text, re.ASCII)
        if found is None or int(found[2]) >= 2**16:
            raise UsageError(
                f"{text!r} is no position: that is topic/partition/offset/place, as `wattstream deadletters list` "
                "shows it."
            )
        return cls(topic_named(found[1]), int(found[2]), int(found[3]), int(found[4]))


@dataclass(frozen=True)
class Choice:
    """Which dead letters: of a topic, a reason, arrived at or after ``since``; or none of these, which is all."""

    topic: str = ""
    reason: str = ""
    since: datetime = EPOCH


@dataclass(frozen=True)
class Group:
    """The dead letters of one topic and reason; ``retried`` of them were sent again."""

    topic: str
    reason: str
    count: int
    retried: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Letter:
    """A dead letter; ``payload`` is empty where only the rest was asked for.

    ``new_offset``: of the message it was last sent again as, in the same partition, at the time ``retried``.
    """

    position: Position
    arrived: datetime
    reason: str
    detail: str
    content_type: str
    key: bytes
    payload: bytes
    retried: datetime | None
    new_offset: int | None


class DeadLetters:
    """What the table of dead letters holds, as a user of ClickHouse may see it; for one thread."""

    def __init__(self, settings: Settings, user: User = "viewer") -> None:
        self._client = settings.clickhouse_client(user)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def groups(self, choice: Choice) -> list[Group]:
        """How many there are, by topic and reason, the most first."""
        return [
            Group(
                row["topic"],
                row["reason"],
                row["letters"],
                row["retried"],
                _time(row["first_ms"]),
                _time(row["last_ms"]),
            )
            for row in self._rows(_GROUPS, **self._arguments(choice))
        ]

    def newest(self, choice: Choice, limit: int) -> list[Letter]:
        """The last that arrived, the newest first, without their payloads."""
        return [_letter(row) for row in self._rows(_NEWEST, **self._arguments(choice), limit=limit)]

    def one(self, position: Position) -> Letter:
        """The dead letter there; of a topic that was made anew, the newer one.

        :raises WattStreamError: where there is none.
        """
        position = self._there(position)
        rows = self._rows(_ONE, **position._asdict())
        if not rows:
            raise _missing([position])
        return _letter(rows[0])

    def selected(self, choice: Choice) -> pl.DataFrame:
        """Which they are, in the order of the log: position, ``arrived_ms``, ``bytes`` of payload, ``retries``."""
        return self._frame(_SELECTED.format(retries=_RETRIES, chosen=_CHOSEN), **self._arguments(choice))

    def at(self, positions: Sequence[Position]) -> pl.DataFrame:
        """The same of those at the positions.

        :raises WattStreamError: naming the positions where there is none.
        """
        query = _SELECTED.format(
            retries=_RETRIES,
            chosen=f"WHERE topic IN {{topics:Array(String)}} AND has({{positions:Array(String)}}, {_POSITION})",
        )
        positions = [self._there(position) for position in positions]
        found: list[pl.DataFrame] = []
        for start in range(0, len(positions), _POSITIONS_PER_QUERY):
            some = positions[start : start + _POSITIONS_PER_QUERY]
            topics = sorted({position.topic for position in some})
            found.append(self._frame(query, topics=topics, positions=list(map(str, some))))
        letters = pl.concat(found).unique(maintain_order=True)
        there = set(letters.select("topic", "topic_partition", "offset", "place").iter_rows())
        absent = [position for position in dict.fromkeys(positions) if tuple(position) not in there]
        if absent:
            raise _missing(absent)
        return letters

    def with_payloads(self, selected: pl.DataFrame) -> Iterator[list[Letter]]:
        """The dead letters of such a frame, a few of one partition at a time; not whether they were retried."""
        for (topic, partition), part in selected.group_by("topic", "topic_partition", maintain_order=True):
            for rows in _slices(part):
                offsets = rows.get_column("offset")
                found = self._rows(
                    _BATCH,
                    topic=topic,
                    partition=partition,
                    first=offsets.min(),
                    last=offsets.max(),
                    offsets=offsets.to_list(),
                    places=rows.get_column("place").to_list(),
                    arrived=rows.get_column("arrived_ms").to_list(),
                )
                yield [_letter(row) for row in found]

    def record(self, retried: Sequence[tuple[Letter, datetime, int]]) -> None:
        """Write down that dead letters were sent again: when, and the offset of each there; as writer only."""
        rows = [(*letter.position, letter.arrived, at, offset) for letter, at, offset in retried]
        schema = pl.Schema(
            {
                "topic": pl.String(),
                "topic_partition": pl.UInt16(),
                "offset": pl.Int64(),
                "place": pl.UInt32(),
                "arrived": pl.Datetime("ms", "UTC"),
                "retried": pl.Datetime("ms", "UTC"),
                "new_offset": pl.Int64(),
            }
        )
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        with _told():
            self._client.insert_arrow("deadletter_retries", frame.to_arrow(compat_level=pl.CompatLevel.oldest()))

    def _arguments(self, choice: Choice) -> dict[str, Any]:
        since = max(0, (choice.since - EPOCH) // timedelta(milliseconds=1))
        topic = self._topics.get(choice.topic and name_of(choice.topic), choice.topic)
        return {"topic": topic, "reason": choice.reason, "since": since}

    def _there(self, position: Position) -> Position:
        return position._replace(topic=self._topics.get(name_of(position.topic), position.topic))

    @cached_property
    def _topics(self) -> dict[str, str]:
        """By the event type's name, in the version of which the tables are."""
        return {name_of(row["topic"]): row["topic"] for row in self._rows(_TOPICS)}

    def _rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        # Else what is no UTF-8 comes as hexadecimal digits.
        plain: dict[str, str | dict[str, str]] = {"key": "bytes", "payload": "bytes"}
        with _told():
            return list(self._client.query(query, parameters=parameters, column_formats=plain).named_results())

    def _frame(self, query: str, **parameters: Any) -> pl.DataFrame:
        with _told():
            table = self._client.query_arrow(query, parameters=parameters, use_strings=True)
        return pl.DataFrame(pl.from_arrow(table)).cast({"arrived_ms": pl.Int64, "bytes": pl.UInt64})


def _slices(part: pl.DataFrame) -> Iterator[pl.DataFrame]:
    start, size = 0, 0
    for index, length in enumerate(part.get_column("bytes").to_list()):
        if index > start and (index - start == _POSITIONS_PER_QUERY or size + length > _BYTES_PER_QUERY):
            yield part[start:index]
            start, size = index, 0
        size += length
    if start < part.height:
        yield part[start:]


def _letter(row: dict[str, Any]) -> Letter:
    retried = row.get("retries", 0) > 0
    return Letter(
        position=Position(row["topic"], row["topic_partition"], row["offset"], row["place"]),
        arrived=_time(row["arrived_ms"]),
        reason=row["reason"],
        detail=row["detail"],
        content_type=row["content_type"],
        key=row["key"],
        payload=row.get("payload", b""),
        retried=_time(row["retried_ms"]) if retried else None,
        new_offset=row["last_offset"] if retried else None,
    )


def _time(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


def _missing(positions: Sequence[Position]) -> WattStreamError:
    more = f" and {len(positions) - 5} more" if len(positions) > 5 else ""
    return WattStreamError(
        f"There is no dead letter at {', '.join(map(str, positions[:5]))}{more}: `wattstream deadletters list` shows "
        "those there are; what arrived a moment ago is there once a worker has read it."
    )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ClickHouseError as error:
        raise WattStreamError(
            f"ClickHouse refused: {error}. Is it running (wattstream status)? Are the tables up to date "
            "(wattstream migrate)?"
        ) from error
