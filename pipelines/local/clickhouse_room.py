"""How much is free on the disk of the tables, and whether it was full a moment ago.

The engine (26.9) goes on where a write finds the disk full: parts of empty files, which it takes for written and, of
inserts, acknowledges. So it begins no part where less than ``KEPT_FREE_BYTES`` are free, an insert that was under way
while the disk was full counts as failed, and once there is room again the server ends: a start sets such parts aside,
and brings back those that were merged into them.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.local.clickhouse_errors import ClickHouseError

KEPT_FREE_BYTES = 64 << 20
FULL_BYTES = KEPT_FREE_BYTES // 4
LOOK_SECONDS = 0.05


class Room:
    """Looks ``LOOK_SECONDS`` apart once it is watched; a disk that is full for less than that may go unseen."""

    def __init__(self, free_bytes: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._free_bytes = free_bytes
        self._clock = clock
        self._last_full = float("-inf")
        self._was_full = False

    @classmethod
    def of(cls, folder: Path) -> "Room":
        """That of the file system on which the folder is."""

        def free() -> int:
            disk = os.statvfs(folder)
            return disk.f_bavail * disk.f_frsize

        return cls(free)

    def is_back(self) -> bool:
        """Look; whether there is room again after the disk was full."""
        free = self._free_bytes()
        if free < FULL_BYTES:
            self._last_full, self._was_full = self._clock(), True
        return self._was_full and free >= KEPT_FREE_BYTES

    def require(self, since: float) -> None:
        """Refuse to call rows written where the disk is full, or was since a time by the clock.

        :raises ClickHouseError: (243).
        """
        self.is_back()
        if self._last_full >= since - 2 * LOOK_SECONDS:
            raise ClickHouseError(
                243, "The disk is full: whether the rows are written shows when there is room again", "NOT_ENOUGH_SPACE"
            )

    def watch(self, full: Callable[[], object], back: Callable[[], object]) -> None:
        """Look from now on, in a thread; each is called once, when the disk is full and when there is room again."""

        def look() -> None:
            told = False
            while not self.is_back():
                if self._was_full and not told:
                    told = True
                    full()
                time.sleep(LOOK_SECONDS)
            back()

        threading.Thread(target=look, name="room", daemon=True).start()
