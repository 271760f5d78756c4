"""Exact dedupe by identity: sets by partition and minute of event time, in bounded memory.

A set is loaded from the raw table when its minute is first touched (an empty one is remembered as empty) and the least
recently used are dropped when the budget is exceeded; a dropped one is loaded again. What is loaded are only rows at
lower positions than the flush at hand, so that a flush taken again decides the same. The flush before may still be
being written: what it holds is in memory, but for minutes that were dropped since, which are loaded once it is done.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

Minute = tuple[int, int]
"""(topic partition, minutes since 1970)."""

Load = Callable[[list[Minute]], pl.DataFrame]
"""The identities stored for these minutes: topic_partition, minute (since 1970), identity_hi, identity_lo."""

# An id is two halves of 8 bytes; an entry of the dict and its two arrays cost about 300 more.
ID_BYTES = 16
MINUTE_BYTES = 300

_Set = tuple[NDArray[np.uint64], NDArray[np.uint64]]


class Seen:
    """The identities seen so far, of all partitions of one topic that this worker owns."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._sets: OrderedDict[Minute, _Set] = OrderedDict()
        self._before: set[Minute] = set()
        """The minutes of the last frame."""
        self.bytes = 0

    def forget(self, partition: int) -> None:
        """Drop what is known of a partition: at every take, since another worker may have written meanwhile."""
        for key in [key for key in self._sets if key[0] == partition]:
            self._drop(key)

    def first(self, frame: pl.DataFrame, load: Load, settled: Callable[[], object]) -> pl.Series:
        """Which rows are the first of their identity: a Boolean for each row of the frame.

        The frame has topic_partition, time, identity_hi, identity_lo, in the order of (offset, place) in each
        partition; equal identities in it count once a minute, the first. What is first is remembered. ``settled``
        waits until the tables hold the frame of the last call; those before it they hold.
        """
        keyed = frame.select(
            "topic_partition", pl.col("time").dt.epoch("s").floordiv(60).alias("minute"), "identity_hi", "identity_lo"
        )
        first = _first_distinct(keyed)
        groups = (
            keyed.with_columns(first=first)
            .with_row_index("row")
            .filter("first")
            .group_by("topic_partition", "minute", maintain_order=True)
            .agg("row", "identity_hi", "identity_lo")
        )
        minutes: list[Minute] = list(zip(groups["topic_partition"], groups["minute"], strict=True))
        missing = [key for key in minutes if key not in self._sets]
        if not self._before.isdisjoint(missing):
            settled()
        self._load(missing, load)
        self._before = set(minutes)
        duplicate: list[NDArray[np.uint32]] = []
        for key, rows, hi, lo in zip(minutes, groups["row"], groups["identity_hi"], groups["identity_lo"], strict=True):
            known = self._add(key, hi.to_numpy(), lo.to_numpy())
            if known.any():
                duplicate.append(rows.to_numpy()[known])
        self._shrink()
        if duplicate:
            mask = first.to_numpy().copy()
            mask[np.concatenate(duplicate)] = False
            return pl.Series("first", mask)
        return first.alias("first")

    def _load(self, missing: list[Minute], load: Load) -> None:
        if not missing:
            return
        stored = load(missing).group_by("topic_partition", "minute").agg("identity_hi", "identity_lo")
        found: dict[Minute, _Set] = {
            (partition, minute): (hi.to_numpy(), lo.to_numpy()) for partition, minute, hi, lo in _rows(stored)
        }
        empty = np.empty(0, np.uint64)
        for key in missing:
            self._sets[key] = (empty, empty)
            self.bytes += MINUTE_BYTES
            hi, lo = found.get(key, (empty, empty))
            self._add(key, hi, lo)

    def _add(self, key: Minute, hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Remember these, which differ from each other; returns which of them were known."""
        known_hi, known_lo = self._sets[key]
        self._sets.move_to_end(key)
        order = np.argsort(hi)  # in order they are looked up and put in at a fifth of the cost
        hi, lo = hi[order], lo[order]
        at = np.searchsorted(known_hi, hi)
        known = _inside(known_hi, known_lo, hi, lo, at)
        new = ~known
        self._sets[key] = (np.insert(known_hi, at[new], hi[new]), np.insert(known_lo, at[new], lo[new]))
        self.bytes += ID_BYTES * int(new.sum())
        found = np.empty_like(known)
        found[order] = known
        return found

    def _shrink(self) -> None:
        while self.bytes > self._budget and self._sets:
            self._drop(next(iter(self._sets)))

    def _drop(self, key: Minute) -> None:
        hi, _ = self._sets.pop(key)
        self.bytes -= MINUTE_BYTES + ID_BYTES * len(hi)


def _first_distinct(keyed: pl.DataFrame) -> pl.Series:
    """Which rows are the first of their identity in their partition and minute."""
    if keyed.get_column("identity_lo").n_unique() == keyed.height:  # nearly always, at an eighth of the cost
        return pl.Series([True]).new_from_index(0, keyed.height)
    # By partition and minute as well: what is first may not depend on what else is in the flush.
    return keyed.select(pl.struct(pl.all()).is_first_distinct()).to_series()


def _inside(
    known_hi: NDArray[np.uint64],
    known_lo: NDArray[np.uint64],
    hi: NDArray[np.uint64],
    lo: NDArray[np.uint64],
    at: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Which identities are among the known, which are sorted by ``hi``; ``at``: where each would go in."""
    if not len(known_hi):
        return np.zeros(len(hi), np.bool_)
    inside = np.minimum(at, len(known_hi) - 1)
    # Two identities that share the high half (odds 10^-7 in ten million) would need a second look to the right.
    same = (known_hi[inside] == hi) & (known_lo[inside] == lo)
    ties = (known_hi[inside] == hi) & ~same
    for index in np.flatnonzero(ties):
        right = np.searchsorted(known_hi, hi[index : index + 1], side="right")[0]
        same[index] = bool((known_lo[at[index] : right] == lo[index]).any())
    return same


def _rows(frame: pl.DataFrame) -> Iterable[tuple[int, int, pl.Series, pl.Series]]:
    return zip(frame["topic_partition"], frame["minute"], frame["identity_hi"], frame["identity_lo"], strict=True)
