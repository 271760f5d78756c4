"""The folder of the embedded ClickHouse: who has it, and whether what is in it is whole."""

import contextlib
import fcntl
import os
from pathlib import Path

from schemas.errors import WattStreamError

ENGINE = "engine"
"""Where the engine keeps its tables, inside the folder."""
DRAFT = "engine.restoring"
"""What a restore has not finished yet; it becomes ``ENGINE`` in one step."""


def hold(folder: Path) -> int:
    """Lock the folder for this process; the kernel frees it when the process ends, however it ends.

    What the lock file says is for people only: a process that was killed may have left it empty or stale.

    :raises WattStreamError: naming the process that holds it, or where the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise WattStreamError(
            f"ClickHouse's folder {folder} can't be used: {error.filename}: {error.strerror}. "
            "Make it writable, or choose another --home."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise WattStreamError(
            f"ClickHouse's folder {folder} is in use by process {owner if owner.isdigit() else 'unknown'}. "
            "Stop that one, or take another folder."
        ) from None
    with contextlib.suppress(OSError):  # the disk is full
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def remembered(folder: Path, part: str) -> bool:
    """Whether this part was told of before, also at an earlier start; from now on it was."""
    file = folder / "lost-parts"
    known = file.read_text().splitlines() if file.exists() else []
    if part not in known:
        with file.open("a") as handle:
            handle.write(f"{part}\n")
    return part in known


def is_held(folder: Path) -> bool:
    """Whether a process has the folder now."""
    try:
        os.close(hold(folder))
    except WattStreamError:
        return True
    return False


def require_whole(folder: Path) -> None:
    """Refuse a folder whose tables are still on their way: an engine would begin there with none.

    :raises WattStreamError: where a restore was cut short before it put the tables in place.
    """
    if (folder / DRAFT).exists() and not (folder / ENGINE).exists():
        raise WattStreamError(
            f"A restore into {folder} was cut short. Run `wattstream restore` again, or delete {folder / DRAFT} "
            "to start without tables."
        )
