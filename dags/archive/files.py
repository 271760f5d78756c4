"""One file of the archive: a stretch of one partition's log, of one day of arrival, as Parquet with zstd.

Beside each ``N.parquet`` is ``N.xxh128``, the xxh3-128 of all its bytes, as ``xxhsum -c`` reads it. A file that bears
its name is whole, was read back and compared: it is written under another name, in these steps.

1. Write the draft, hashing what is written; fsync.
2. Read it back, decode it, and compare.
3. Write the checksum: draft, fsync, rename. Alone it means nothing.
4. Rename the draft, fsync the folder.

A kill between any two leaves drafts, or a checksum without its file; the next run removes both.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dags.archive.messages import SCHEMA, day_of, milliseconds
from schemas.errors import WattStreamError

ROW_GROUP_BYTES = 32 * 1024 * 1024
"""Arrow bytes in memory before they are written, and what a reader holds at once."""
ROW_GROUP_ROWS = 131_072
FILE_BYTES = 512 * 1024 * 1024
"""Arrow bytes that end a file: what a kill can make a run do again."""

_SUMMARY = b"wattstream"
_CHECKSUM = ".xxh128"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """What a file holds of a partition's log: offsets from ``start`` up to, not including, ``end``.

    ``absent`` of them have no message: ends of transactions, what was aborted, what compaction removed. ``after`` is
    where the file before ends; what lies between it and ``start`` had expired from Kafka before it was archived.
    ``first``, ``last`` and ``newest`` (arrival, ms since 1970) are those of its messages; null where it has none.
    """

    topic: str
    topic_id: str
    partition: int
    day: str
    after: int
    start: int
    end: int
    messages: int
    absent: int
    first: int | None
    last: int | None
    newest: int | None


@dataclass(frozen=True)
class ArchiveFile:
    """A file that bears its name, and what its footer says."""

    path: Path
    stretch: Stretch

    @classmethod
    def open(cls, path: Path) -> "ArchiveFile":
        """Read the footer.

        :raises WattStreamError: where the file can't be one of ours.
        """
        try:
            metadata = pq.read_metadata(path).metadata or {}
            stretch = Stretch(**json.loads(metadata[_SUMMARY]))
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise WattStreamError(f"{path} has no footer that can be read ({error})") from error
        return cls(path, stretch)

    def problem(self) -> str | None:
        """Read all of it: what is wrong with it in words, or None."""
        checksum = self.path.with_suffix(_CHECKSUM)
        try:
            wanted = checksum.read_text("ascii").split()[0]
        except (OSError, ValueError, IndexError):
            return f"has no checksum {checksum.name} beside it that can be read"
        try:
            return _problem(self.path, wanted, self.stretch)
        except OSError as error:
            return f"can't be read ({error})"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its messages, one row group in memory at a time."""
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, use_threads=False).cast(SCHEMA).to_batches()


class Draft:
    """A file that is being written. It is given up unless ``commit`` was reached."""

    def __init__(
        self, folder: Path, topic: str, topic_id: str, partition: int, day: date, after: int, start: int
    ) -> None:
        """``folder``: the partition's; the file goes into the day's."""
        self.day = day
        self._origin: dict[str, Any] = {
            "topic": topic,
            "topic_id": topic_id,
            "partition": partition,
            "day": day.isoformat(),
        }
        self._after, self._start = after, start
        self._path = folder / day.isoformat() / f"{start:020}.parquet"
        _make_folders(self._path.parent)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._sink = _Hashed(self._part.open("wb", buffering=0))
        try:
            self._writer = pq.ParquetWriter(
                self._sink,
                SCHEMA,
                compression="zstd",
                # Values are all different: a dictionary of them is thrown away again.
                use_dictionary=["key", "headers.list.element.name", "headers.list.element.value"],  # pyright: ignore[reportArgumentType]
                write_statistics=["partition", "offset", "timestamp"],
            )
        except OSError:  # it begins with writing
            self._part.unlink()
            raise
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = self._messages = self._written = 0
        self._first: int | None = None
        self._last: int | None = None
        self._newest: int | None = None

    @property
    def full(self) -> bool:
        """Whether what comes next belongs into another file."""
        return self._written + self._bytes >= FILE_BYTES

    @property
    def next(self) -> int:
        """The offset after its last message."""
        return self._start if self._last is None else self._last + 1

    def add(self, batch: pa.RecordBatch) -> None:
        """Messages of its day that follow those it has."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        self._messages += batch.num_rows
        offsets = batch.column("offset")
        self._first = offsets[0].as_py() if self._first is None else self._first
        self._last = offsets[-1].as_py()
        self._newest = max(self._newest or 0, int(milliseconds(batch).max()))
        if self._bytes >= ROW_GROUP_BYTES or sum(b.num_rows for b in self._waiting) >= ROW_GROUP_ROWS:
            self._write()

    def commit(self, end: int) -> ArchiveFile:
        """The file under its name, checked; it holds everything before ``end``.

        :raises WattStreamError: where what was read back is not what was written.
        """
        self._write()
        absent = end - self._start - self._messages
        stretch = Stretch(
            **self._origin,
            after=self._after,
            start=self._start,
            end=end,
            messages=self._messages,
            absent=absent,
            first=self._first,
            last=self._last,
            newest=self._newest,
        )
        self._writer.add_key_value_metadata({_SUMMARY.decode(): json.dumps(asdict(stretch))})
        self._writer.close()
        _sync(self._sink)
        digest = self._sink.hash.hexdigest()
        problem = _problem(self._part, digest, stretch)
        if problem:
            self.discard()
            raise WattStreamError(
                f"{self._path} {problem}, as soon as it was written: the disk of the archive or this machine's "
                "memory is not to be trusted. Nothing was kept; try again on another disk (WATTSTREAM_ARCHIVE)."
            )
        checksum = self._path.with_suffix(_CHECKSUM)
        part = checksum.with_name(f".{checksum.name}.part")
        with part.open("wb") as sink:
            sink.write(f"{digest}  {self._path.name}\n".encode())
            _sync(sink)
        part.replace(checksum)
        self._part.replace(self._path)
        _sync_folder(self._path.parent)
        return ArchiveFile(self._path, stretch)

    def discard(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._sink.close()
        self._part.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._written += self._bytes
        self._waiting, self._bytes = [], 0


def sweep(folder: Path) -> int:
    """Remove what a killed run left in a partition's folder: drafts, and checksums without a file; returns how many."""
    stale = list(folder.rglob("*.part"))
    stale += [found for found in folder.rglob(f"*{_CHECKSUM}") if not found.with_suffix(".parquet").exists()]
    for found in stale:
        found.unlink()
    return len(stale)


def _problem(path: Path, wanted: str, stretch: Stretch) -> str | None:
    """Why the file is not the one with that checksum, holding that stretch."""
    found = xxhash.xxh3_128()
    with path.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk, not from memory
        while block := stream.read(_BLOCK):
            found.update(block)
    if found.hexdigest() != wanted:
        return f"has the checksum {found.hexdigest()} and not {wanted}"
    messages, last = 0, stretch.start - 1
    try:
        for batch in ArchiveFile(path, stretch).batches():
            offsets = np.concatenate([[last], batch.column("offset").to_numpy()])
            if (np.diff(offsets) <= 0).any():
                return "has offsets that do not rise"
            if {day_of(int(ms)).isoformat() for ms in _ends(milliseconds(batch))} - {stretch.day}:
                return f"has messages of another day than {stretch.day}"
            messages, last = messages + batch.num_rows, int(offsets[-1])
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"can't be decoded ({error})"
    if messages != stretch.messages or last >= stretch.end or (messages and last != stretch.last):
        return f"has {messages} messages up to offset {last}; its footer says {stretch.messages} up to {stretch.last}"
    return None


def _ends(numbers: np.ndarray) -> list[int]:
    return [int(numbers.min()), int(numbers.max())] if len(numbers) else []


class _Hashed(io.BufferedWriter):
    """Hashes what is written to it."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw, _BLOCK)
        self.hash = xxhash.xxh3_128()

    def write(self, data: Any, /) -> int:
        self.hash.update(data)
        return super().write(data)


def _make_folders(folder: Path) -> None:
    if not folder.exists():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync(stream: io.BufferedWriter) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
