"""Whether the disk of the tables has room, or was full since the server started.

The engine (26.9) goes on where a write finds the disk full: parts of empty files, which it takes for written and, of
inserts, acknowledges; a table's definition that an ALTER leaves empty, so that the next start refuses the table. So it
begins no part where less than ``KEPT_FREE_BYTES`` are free, and once the disk was full nothing counts as written until
there is room again and the server has started anew: a start sets such parts aside, and brings back those that were
merged into them.
"""

import contextlib
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

    def __init__(self, free_bytes: Callable[[], int]) -> None:
        self._free_bytes = free_bytes
        self._free = 0
        self.was_full = False

    @classmethod
    def of(cls, folder: Path) -> "Room":
        """That of the file system on which the folder is."""

        def free() -> int:
            disk = os.statvfs(folder)
            out_of_inodes = disk.f_files and not disk.f_favail
            return 0 if out_of_inodes else disk.f_bavail * disk.f_frsize

        return cls(free)

    @property
    def is_back(self) -> bool:
        """Whether the last look found room after the disk was full."""
        return self.was_full and self._free >= KEPT_FREE_BYTES

    def look(self) -> None:
        """See how much is free now."""
        self._free = self._free_bytes()
        self.was_full |= self._free < FULL_BYTES

    def require(self) -> None:
        """Look; :raises ClickHouseError: (243) where the disk is full, or was since the start."""
        self.look()
        if self.was_full:
            raise ClickHouseError(
                243,
                f"The disk is full: nothing is written until {KEPT_FREE_BYTES >> 20} MiB are free and the server has "
                "started anew, and whether this was shows then",
                "NOT_ENOUGH_SPACE",
            )

    def watch(self, full: Callable[[], object], back: Callable[[], object]) -> None:
        """Look from now on, in a thread. ``full`` is called when the disk is, ``back`` when there is room again.

        What raises is tried again at the next look.
        """

        def look() -> None:
            told = False
            while not self.is_back:
                time.sleep(LOOK_SECONDS)
                with contextlib.suppress(Exception):
                    self.look()
                if self.was_full and not told:  # perhaps room is back: somebody else saw that there was none
                    with contextlib.suppress(Exception):
                        full()
                        told = True
            back()

        threading.Thread(target=look, name="room", daemon=True).start()
