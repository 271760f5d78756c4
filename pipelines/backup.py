"""Backup and restore of the embedded ClickHouse: its tables, in step with the ledger, while the stack goes on.

**How.** ``ALTER TABLE … FREEZE`` makes hard links to the parts that a table has at one moment, and holds nobody up.
Parts never change, so copying them may take its time. (``BACKUP`` would write a second copy where the server may write,
which is its own folder only, and would choose the order of the tables itself.)

**In which order.** A flush writes raw rows, then dead letters, then rollups, then its done range (streams/flush.py).
Tables are frozen the other way round: ledger, rollups, dead letters, raw. So what a done range says was there before
the other tables were frozen: each of its rows is in the backup. What lies beyond the ledger looks as it does after a
crash between the steps, and a take of the partition leaves it out (streams/takes.py). Frozen raw first, the ledger
could call a range done whose rows came a moment later; they would be lost, and no worker would read them again.

A crash leaves at most one flush beyond the ledger, a backup perhaps several. The take copes: raw rows are left out one
by one, by position; of a month of a rollup, all events up to its highest ``upto`` are, and a table that is frozen at
one moment holds all of them, as the flushes of a partition follow each other and each writes a month in one part.

Before the ledger come the migrations: one that is down as applied was applied to all that is frozen after it, and one
that isn't may be run again. The ranges come before the claims, so that each has its claim.

**What makes it whole.** The manifest, backup.json, is written last: without it a folder is no backup. It holds the size
and the xxh3-128 of each file, which a restore compares; only then the engine's folder gets its name, in one step.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from errno import EDQUOT, ENOSPC
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import xxhash
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError

from pipelines.local.clickhouse_folder import DRAFT, ENGINE, hold, is_held
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from pipelines.local.state import StackFiles
from schemas.errors import UsageError, WattStreamError
from schemas.events import EVENT_TYPES
from schemas.progress import Progress, silent
from schemas.settings import DATABASE, PORTS, Settings
from schemas.tables import ROLLUPS
from streams.swaps import open_intent

MANIFEST = "backup.json"
FORMAT = 1
# A migration or a replaced catalogue between two looks makes it begin again; each is over in a second.
ATTEMPTS = 10

_FIRST = ("migrations", "ingest_ranges", "claims")
_LAST = (*(t for tables in ROLLUPS.values() for t in tables), "deadletters", *(kind.name for kind in EVENT_TYPES))
_BLOCK = 1 << 20
_MIB = 1 << 20
_TABLES = """
SELECT name, toString(uuid) AS uuid, engine, metadata_path AS metadata, create_table_query AS statement
FROM system.tables WHERE database = currentDatabase()
"""


@dataclass(frozen=True)
class Manifest:
    """What backup.json says: ``files`` are [bytes, xxh3-128] by their path in the engine's folder.

    ``without_data`` names tables of other engines than MergeTree, of which only the structure is there.
    """

    format: int
    made: str
    engine: str
    tables: list[str]
    without_data: list[str]
    files: dict[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(size for size, _ in self.files.values())

    def report(self, **more: Any) -> dict[str, Any]:
        """What a command prints of it."""
        told = asdict(self) | {"files": len(self.files), "bytes": self.bytes}
        return {"made": told.pop("made"), **more} | {name: told[name] for name in told if name != "format"}


@dataclass(frozen=True)
class _Table:
    uuid: str
    engine: str
    metadata: str
    statement: str

    @property
    def folder(self) -> str:
        return f"store/{self.uuid[:3]}/{self.uuid}"

    @property
    def merge_tree(self) -> bool:
        return self.engine.endswith("MergeTree")


def order(tables: Mapping[str, Any]) -> list[str]:
    """The names of tables in the order in which they must be frozen."""

    def place(name: str) -> tuple[int, int, str]:
        if name in _FIRST:
            return 0, _FIRST.index(name), name
        return (2, _LAST.index(name), name) if name in _LAST else (1, 0, name)

    return sorted(tables, key=place)


def backup(settings: Settings, to: Path, *, progress: Progress = silent) -> Manifest:
    """Copy the tables into the folder ``to``, which is new or empty; a stack that runs goes on.

    :raises UsageError: where ``to`` holds something, or ClickHouse is a server of one's own.
    :raises WattStreamError: where the tables can't be read, or ``to`` can't be written.
    """
    _require_embedded(settings, "BACKUP DATABASE")
    engine = settings.home.resolve() / "clickhouse" / ENGINE
    if not engine.exists():
        raise WattStreamError(f"There are no tables in {settings.home.resolve()}: --home names another stack's home.")
    with _told():
        to.mkdir(mode=0o700, parents=True, exist_ok=True)  # the tables name tenants
        if next(to.iterdir(), None) is not None:
            raise UsageError(f"{to} is not empty: name a new folder. One without {MANIFEST} was cut short, delete it.")
    with _told(), _client(settings) as client, _frozen(client, engine) as (image, tables):
        sizes = {str(file.relative_to(image)): file.stat().st_size for file in image.rglob("*") if file.is_file()}
        manifest = Manifest(
            FORMAT,
            f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            version("chdb-core"),
            sorted(name for name, table in tables.items() if table.merge_tree),
            sorted(
                name for name, table in tables.items() if not table.merge_tree and not table.engine.endswith("View")
            ),
            dict(_copied(image, to / ENGINE, sizes, progress)),
        )
        os.sync()
        draft = to / f".{MANIFEST}"
        draft.write_text(json.dumps(asdict(manifest), indent=0))
        draft.rename(to / MANIFEST)
        os.sync()
    return manifest


def restore(
    settings: Settings, source: Path, *, replace: bool = False, progress: Progress = silent
) -> tuple[Manifest, Path | None]:
    """Put a backup's tables into the home, whose stack is down; (the manifest, where the home's old tables are now).

    :raises UsageError: where ClickHouse is a server of one's own.
    :raises WattStreamError: where the backup is not whole, the home has tables and ``replace`` isn't given, or runs.
    """
    _require_embedded(settings, "RESTORE DATABASE")
    manifest = read_manifest(source)
    folder = settings.home.resolve() / "clickhouse"
    engine, draft = folder / ENGINE, folder / DRAFT
    with _told(), StackFiles(settings.home).lock(), _held(folder):
        aside = folder / f"{ENGINE}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}" if engine.exists() else None
        if aside and not replace:
            raise WattStreamError(f"{folder} holds tables: --replace moves them aside, or name another --home.")
        shutil.rmtree(draft, ignore_errors=True)
        sizes = {path: size for path, (size, _) in manifest.files.items()}
        try:
            for path, found in _copied(source / ENGINE, draft, sizes, progress):
                if found != tuple(manifest.files[path]):
                    raise WattStreamError(f"{source / ENGINE / path} is damaged: take another backup.")
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            if isinstance(error, FileNotFoundError):
                raise WattStreamError(f"{error.filename} is missing: the backup is damaged, take another.") from error
            raise
        os.sync()
        if aside:
            engine.rename(aside)
        draft.rename(engine)
    return manifest, aside


def read_manifest(source: Path) -> Manifest:
    """The manifest of the backup in a folder.

    :raises WattStreamError: where it isn't there, or is damaged.
    """
    file = source / MANIFEST
    try:
        manifest = Manifest(**json.loads(file.read_text()))
        if manifest.format != FORMAT or any(_leads_out(path) for path in manifest.files):
            raise ValueError(f"format {manifest.format}")
    except (FileNotFoundError, NotADirectoryError):
        raise WattStreamError(
            f"{source} is no backup, or one that was cut short: it has no {MANIFEST}, which comes last. Take another."
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WattStreamError(
            f"{file} is damaged, of another release, or not to be read ({error}): take another backup."
        ) from error
    return manifest


def _leads_out(path: str) -> bool:
    return Path(path).is_absolute() or ".." in Path(path).parts


def _require_embedded(settings: Settings, statement: str) -> None:
    if settings.clickhouse is not None:
        raise UsageError(
            f"ClickHouse at {settings.clickhouse} is a server of your own: use its own {statement} {DATABASE}; "
            "docs/reliability.md says in which order of tables."
        )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A file that can't be read or written is told without a traceback; the command line tells of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise
        raise WattStreamError(f"{error.filename}: {error.strerror}.") from error
    except ClickHouseError as error:
        raise WattStreamError(f"ClickHouse did not let its tables be copied: {error}") from error


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    lock = hold(folder)
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator[Client]:
    """A client of the home's server; where none runs, one does for as long as this is used."""
    with contextlib.ExitStack() as stack:
        if not is_held(settings.home.resolve() / "clickhouse"):
            server = stack.enter_context(EmbeddedClickHouse(settings.home, free_ports(1)))
            settings = settings.model_copy(update={"port_base": server.port - PORTS["clickhouse"]})
        client = settings.clickhouse_client("writer")
        stack.callback(client.close)
        yield client


@contextlib.contextmanager
def _frozen(client: Client, engine: Path) -> Iterator[tuple[Path, dict[str, _Table]]]:
    """A folder of hard links that looks like the engine's, with each table as it was at one moment; and its tables."""
    shadow = engine / "shadow"
    for left in shadow.glob("backup_*"):  # of one that was killed
        pid = left.name.removeprefix("backup_")
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    image = shadow / f"backup_{os.getpid()}"
    try:
        for _ in range(ATTEMPTS):
            shutil.rmtree(image, ignore_errors=True)
            before = _tables(client)
            if "swaps" in before and (intent := open_intent(client)):  # its tables go by their ids, half way through
                raise WattStreamError(
                    f"All tables are being swapped: `{intent.finish}` ends a swap that was cut short."
                )
            for name in order(before):
                if before[name].merge_tree:
                    _freeze(client, name, image.name)
            _link(engine, image, f"metadata/{DATABASE}.sql")
            for table in before.values():
                with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                    _link(engine, image, table.metadata)
                    if table.merge_tree:
                        _link(engine, image, f"{table.folder}/format_version.txt")
            after = _tables(client)
            if all(after.get(name, table) == table for name, table in before.items()):
                for name in before.keys() - after.keys():  # staging of Dagster's, which comes and goes
                    (image / before[name].metadata).unlink(missing_ok=True)
                    shutil.rmtree(image / before[name].folder, ignore_errors=True)
                yield image, {name: before[name] for name in before.keys() & after.keys()}
                return
        raise WattStreamError("The tables are being changed all the time: let the migration end, and try again.")
    finally:
        shutil.rmtree(image, ignore_errors=True)


def _tables(client: Client) -> dict[str, _Table]:
    return {row.pop("name"): _Table(**row) for row in client.query(_TABLES).named_results()}


def _freeze(client: Client, name: str, shadow: str) -> None:
    try:
        client.command(f"ALTER TABLE `{name}` FREEZE WITH NAME '{shadow}'")
    except ClickHouseError:
        if name in _tables(client):
            raise


def _link(engine: Path, image: Path, path: str) -> None:
    """Add a file to the image; the engine replaces such files whole, and never writes into one."""
    target = image / path
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(engine / path, target)


def _copied(
    source: Path, target: Path, sizes: Mapping[str, int], progress: Progress
) -> Iterator[tuple[str, tuple[int, str]]]:
    """Copy files, each named by its path in ``source``; yields (path, (bytes, xxh3-128 in hex)) of what was read."""
    total, done = sum(sizes.values()), 0
    for path in sorted(sizes):
        found, size = xxhash.xxh3_128(), 0
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True)
        with (source / path).open("rb") as reader, to.open("xb") as writer:
            while block := reader.read(_BLOCK):
                found.update(block)
                size += len(block)
                writer.write(block)
        done += size
        progress("copying, MiB", done // _MIB, total // _MIB)
        yield path, (size, found.hexdigest())
