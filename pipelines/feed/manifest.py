"""What a producer says it sent: append-only files under home/manifests, one JSON line a record.

A producer writes its intent before it sends and an acknowledgement when the broker has taken everything, so that a
kill at any moment leaves a true account. The records:

- ``{"producer", "started", "pid"}``: the first line.
- ``{"intent": N, "topic", "keys": {KEY: [events, checksum]}}``: sending N is about to begin.
- ``{"ack": N, "parts": [[partition, first, last, messages, events, checksum], …]}``: what of N the broker holds;
  between the first and last offset there may be messages of others.

A checksum is the sum modulo 2^64 of the low halves of the events' identities: the same in any order and any split.
What was intended and not acknowledged (the producer died, or gave up) may or may not be in the log.
"""

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from schemas.errors import WattStreamError

FOLDER = "manifests"
_MODULUS = 2**64


class Tally(NamedTuple):
    """A number of events and the checksum of their identities; tallies add and subtract."""

    events: int = 0
    checksum: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(self.events + other.events, (self.checksum + other.checksum) % _MODULUS)

    def minus(self, other: "Tally") -> "Tally":
        """This without the other."""
        return Tally(self.events - other.events, (self.checksum - other.checksum) % _MODULUS)


class Part(NamedTuple):
    """What one partition holds of a sending: offsets inclusive."""

    partition: int
    first: int
    last: int
    messages: int
    events: int
    checksum: int


@dataclass(frozen=True)
class Sending:
    """One call of a producer's ``send`` as its manifest tells it; ``parts`` is empty where nothing was acknowledged."""

    file: Path
    number: int
    topic: str
    keys: dict[str, Tally]
    parts: tuple[Part, ...] = ()

    @property
    def intended(self) -> Tally:
        """All that it set out to send."""
        return _total(self.keys.values())

    @property
    def acknowledged(self) -> Tally:
        """What the broker holds for certain."""
        return _total(Tally(part.events, part.checksum) for part in self.parts)

    @property
    def unknown(self) -> Tally:
        """What may or may not be in the log."""
        return self.intended.minus(self.acknowledged)


@dataclass
class Totals:
    """What all producers together say of one topic."""

    intended: Tally = field(default_factory=Tally)
    acknowledged: Tally = field(default_factory=Tally)
    unknown: Tally = field(default_factory=Tally)


class Manifest:
    """The manifest of one producer; each record is one write to the system, so a kill can't tear an older one."""

    def __init__(self, home: Path, name: str) -> None:
        folder = home / FOLDER
        self.path = folder / f"{name}-{uuid.uuid4()}.jsonl"
        self._sendings = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o644)
        except OSError as error:
            raise WattStreamError(f"Can't open the manifest {self.path}: {error.strerror}.") from error
        self._append({"producer": name, "started": datetime.now(UTC).isoformat(), "pid": os.getpid()})

    def intend(self, topic: str, keys: dict[str, Tally]) -> int:
        """Say what is about to be sent; returns the number of the sending.

        :raises WattStreamError: where it can't be written: then nothing may be sent.
        """
        self._sendings += 1
        self._append({"intent": self._sendings, "topic": topic, "keys": keys})
        return self._sendings

    def acknowledge(self, sending: int, parts: list[Part]) -> None:
        """Say what the broker has taken of a sending."""
        self._append({"ack": sending, "parts": parts})

    def close(self) -> None:
        """No more records."""
        os.close(self._descriptor)

    def _append(self, record: dict[str, Any]) -> None:
        line = orjson.dumps(record, default=list) + b"\n"  # a named tuple is a list to JSON
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise WattStreamError(f"Can't write the manifest {self.path}: {error.strerror}.") from error
        if written != len(line):
            raise WattStreamError(f"Can't write the manifest {self.path}: the disk is full.")


def sendings(home: Path) -> Iterator[Sending]:
    """Every sending of every manifest under ``home``, those of living producers included.

    :raises WattStreamError: naming file and line where a record can't be read (a torn last line is a kill, no error).
    """
    for path in sorted((home / FOLDER).glob("*.jsonl")):
        yield from _sendings_of(path)


def read(home: Path) -> dict[str, Totals]:
    """The totals by topic over every manifest under ``home``."""
    by_topic: dict[str, Totals] = {}
    for sending in sendings(home):
        totals = by_topic.setdefault(sending.topic, Totals())
        totals.intended = totals.intended.plus(sending.intended)
        totals.acknowledged = totals.acknowledged.plus(sending.acknowledged)
        totals.unknown = totals.unknown.plus(sending.unknown)
    return by_topic


def _sendings_of(path: Path) -> Iterator[Sending]:
    """Acknowledgements follow their intent closely, so few sendings are open at a time: a long manifest streams."""
    waiting: dict[int, Sending] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break  # torn by a kill, or being written now
            try:
                record = orjson.loads(line)
                if "intent" in record:
                    keys = {key: Tally(*tally) for key, tally in record["keys"].items()}
                    waiting[record["intent"]] = Sending(path, record["intent"], record["topic"], keys)
                elif "ack" in record:
                    intent = waiting.pop(record["ack"])
                    parts = tuple(Part(*part) for part in record["parts"])
                    yield Sending(path, intent.number, intent.topic, intent.keys, parts)
            except (ValueError, KeyError, TypeError) as error:
                raise WattStreamError(
                    f"The manifest {path} is damaged in line {number} ({error!r}): it can't say any more what was sent."
                ) from error
    yield from waiting.values()


def _total(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total = total.plus(tally)
    return total
