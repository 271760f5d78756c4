"""The archive's folder: which stretches of each partition are there, and their messages in order.

ARCHIVE/<topic>/<partition>/<yyyy-mm-dd>/<first offset>.parquet
"""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from dags.archive.files import ArchiveFile, Draft, sweep
from dags.archive.messages import by_day
from schemas.errors import WattStreamError


@dataclass(frozen=True)
class Gap:
    """Offsets that no file holds: ``expired`` from Kafka before they were archived, or else a file is gone."""

    start: int
    end: int
    expired: bool


@dataclass(frozen=True)
class Chain:
    """The files of a partition in the order of their offsets, and what is wrong with those that can't be read."""

    files: tuple[ArchiveFile, ...]
    damaged: tuple[str, ...] = ()

    @property
    def start(self) -> int | None:
        """The first offset; None where there is no file."""
        return self.files[0].stretch.start if self.files else None

    @property
    def end(self) -> int | None:
        """The offset after the last."""
        return max(file.stretch.end for file in self.files) if self.files else None

    @property
    def reach(self) -> int | None:
        """Up to where no file is gone."""
        return next((gap.start for gap in self.gaps() if not gap.expired), self.end)

    @property
    def topic_ids(self) -> set[str]:
        """Of more than one topic of that name there should be none."""
        return {file.stretch.topic_id for file in self.files}

    def gaps(self) -> list[Gap]:
        """Between the first file and the last."""
        found: list[Gap] = []
        at = self.start or 0
        for file in self.files:
            stretch = file.stretch
            if stretch.start > at:
                known = max(at, min(stretch.after, stretch.start))
                if known > at:
                    found.append(Gap(at, known, expired=False))
                if stretch.start > known:
                    found.append(Gap(known, stretch.start, expired=True))
            at = max(at, stretch.end)
        return found


@dataclass(frozen=True)
class Missing:
    """Offsets to archive, from ``start`` up to, not including, ``end``; what follows ``after`` before it is expired."""

    after: int
    start: int
    end: int


def missing(chain: Chain, log_start: int, log_end: int) -> list[Missing]:
    """What the log holds and the chain doesn't: before it, where files are gone, and after it."""
    start, end = chain.start, chain.end
    if start is None or end is None:
        wanted = [(log_start, log_end)]
    else:
        gone = [(gap.start, gap.end) for gap in chain.gaps() if not gap.expired]
        wanted = [(min(log_start, start), start), *gone, (end, log_end)]
    return [Missing(a, max(a, log_start), b) for a, b in wanted if max(a, log_start) < b]


class Archive:
    """A folder of topics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def partitions(self, topics: Iterable[str]) -> list[tuple[str, int]]:
        """Those with a folder, in order."""
        return [
            (topic, int(found.name))
            for topic in topics
            for found in sorted((self.folder / topic).glob("[0-9]*"), key=lambda path: int(path.name))
        ]

    def chain(self, topic: str, partition: int) -> Chain:
        """The files of a partition, by their footers alone."""
        files: list[ArchiveFile] = []
        damaged: list[str] = []
        for path in (self.folder / topic / str(partition)).glob("*/*.parquet"):
            if path.name.startswith("."):
                continue
            try:
                files.append(ArchiveFile.open(path))
            except WattStreamError as error:
                damaged.append(str(error))
        return Chain(tuple(sorted(files, key=lambda file: file.stretch.start)), tuple(sorted(damaged)))

    def messages(self, topic: str, partition: int, first: int = 0, end: int | None = None) -> Iterator[pa.RecordBatch]:
        """The messages from offset ``first`` up to, not including, ``end``, in ``messages.SCHEMA``, by their offset.

        About ``files.ROW_GROUP_BYTES`` are in memory at a time. What had expired unread is passed over, and where the
        archive begins and ends is not judged: ``chain`` tells both.

        :raises WattStreamError: where a file can't be read, or is gone from between others.
        """
        chain = self.chain(topic, partition)
        self._hold(f"{topic}/{partition}", chain, first, end)
        at = first
        for file in chain.files:
            if file.stretch.end <= at or (end is not None and file.stretch.start >= end):
                continue
            try:
                for batch in file.batches():
                    offsets = batch.column("offset").to_numpy()
                    first_row = int(np.searchsorted(offsets, at))
                    stop_row = len(offsets) if end is None else int(np.searchsorted(offsets, end))
                    if first_row < stop_row:
                        yield batch.slice(first_row, stop_row - first_row)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise WattStreamError(f"{file.path} can't be read ({error}): `wattstream archive --verify`.") from error
            at = file.stretch.end

    @staticmethod
    def _hold(name: str, chain: Chain, first: int, end: int | None) -> None:
        wrong = list(chain.damaged)
        wrong += [
            f"what held offsets {gap.start} to {gap.end - 1} is gone"
            for gap in chain.gaps()
            if not gap.expired and gap.end > first and (end is None or gap.start < end)
        ]
        if wrong:
            raise WattStreamError(
                f"{name}: the archive is not whole: {'; '.join(wrong)}. `wattstream archive --verify` says what to do."
            )

    def write(
        self,
        topic: str,
        topic_id: str,
        partition: int,
        wanted: Missing,
        batches: Iterable[pa.RecordBatch],
        today: date,
    ) -> Iterator[ArchiveFile]:
        """Archive what was missing, file by file; ``batches`` are all messages of those offsets.

        ``today`` is the day of offsets without any message. Must be called under ``lock``.
        """
        folder = self.folder / topic / str(partition)
        after, start = wanted.after, wanted.start
        draft: Draft | None = None
        try:
            for batch in batches:
                for day, piece in by_day(batch):
                    if draft is not None and (draft.day != day or draft.full):
                        file = draft.commit(draft.next)
                        draft, after, start = None, file.stretch.end, file.stretch.end
                        yield file
                    if draft is None:
                        draft = Draft(folder, topic, topic_id, partition, day, after, start)
                    draft.add(piece)
            if draft is None and start < wanted.end:
                draft = Draft(folder, topic, topic_id, partition, today, after, start)
            if draft is not None:
                file = draft.commit(wanted.end)
                draft = None
                yield file
        finally:
            if draft is not None:
                draft.discard()

    @contextmanager
    def lock(self, topic: str) -> Iterator[None]:
        """One run at a time may write a topic; what a killed one left is removed first.

        :raises WattStreamError: where another is at it, or there can't be such a folder.
        """
        folder = self.folder / topic
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileExistsError, PermissionError) as error:
            raise WattStreamError(
                f"{folder} can't be made ({error.strerror}): give WATTSTREAM_ARCHIVE another."
            ) from error
        with (folder / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WattStreamError(f"Another run is archiving {topic}: try again when it has ended.") from error
            sweep(folder)
            yield
