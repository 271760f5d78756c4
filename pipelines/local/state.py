"""What a running stack leaves in its home for others to read: the lock of its supervisor, state.json and a log."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from schemas.errors import WattStreamError

Phase = Literal["starting", "ready", "stopping", "stopped", "failed"]


class StackFiles:
    """The files of the stack in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._state = self.home / "state.json"
        self._lock = self.home / "supervisor.lock"
        self.supervisor_log = self.home / "logs" / "supervisor.log"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only supervisor of this home.

        :raises WattStreamError: where another one is running, or the folder can't be written.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)  # the log names tenants
            self.supervisor_log.parent.mkdir(parents=True, exist_ok=True)
            file = self._lock.open("w")
        except OSError as error:
            raise WattStreamError(f"{self.home} can't be written ({error.strerror}): choose another --home.") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WattStreamError(
                    f"A stack is already running in {self.home}. `wattstream status` shows it, `wattstream down` stops "
                    "it; a second one needs its own --home and --port-base."
                ) from None
            yield

    def is_locked(self) -> bool:
        """Whether a supervisor has this home now."""
        try:
            with self._lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def write(self, snapshot: dict[str, Any]) -> None:
        """Replace state.json; readers see the old or the new one, whole."""
        me = psutil.Process()
        draft = self._state.with_suffix(".tmp")
        draft.write_text(json.dumps({"pid": me.pid, "started": me.create_time()} | snapshot, indent=1))
        draft.replace(self._state)

    def forget(self) -> None:
        """Remove the state of an earlier start."""
        self._state.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """The last state written, or None. Where its supervisor is gone, every part of it is told as stopped.

        :raises WattStreamError: where it is damaged.
        """
        try:
            snapshot = json.loads(self._state.read_text())
            if supervisor(snapshot) is None:
                for part in snapshot["parts"].values():
                    if part["state"] != "external":
                        part |= {"state": "stopped", "pid": None}
                if snapshot["phase"] not in ("stopped", "failed"):
                    snapshot |= {"phase": "stopped", "error": "The supervisor was killed."}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WattStreamError(
                f"{self._state} is damaged ({error!r}). `wattstream down` stops what runs and removes it; "
                "then start again."
            ) from error
        return snapshot

    def log(self, message: str) -> None:
        """Append a line to logs/supervisor.log."""
        with contextlib.suppress(OSError), self.supervisor_log.open("a") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}\n")


def supervisor(snapshot: dict[str, Any]) -> psutil.Process | None:
    """The living supervisor that wrote a snapshot; a recycled pid is not taken for it."""
    try:
        process = psutil.Process(snapshot["pid"])
        alive = process.create_time() == snapshot["started"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if alive else None
