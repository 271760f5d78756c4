"""The broker's jars: a pinned list, fetched once from Maven Central by jgo and checked by SHA-256 at every start."""

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from schemas.errors import WattStreamError


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar: Maven coordinate (group:artifact:version), size in bytes, SHA-256 in hex."""

    coordinate: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """The name in the cache."""
        group, artifact, version = self.coordinate.split(":")
        return f"{group}.{artifact}-{version}.jar"


def pinned_jars() -> list[Jar]:
    """The class path of the broker, in the order of kafka_jars.txt."""
    lines = files("pipelines.local").joinpath("kafka_jars.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [Jar(coordinate, int(size), sha256) for sha256, size, coordinate in rows]


def cache_dir() -> Path:
    """Where downloads are kept for all stacks of this user: WATTSTREAM_CACHE, else the user's cache folder."""
    configured = os.environ.get("WATTSTREAM_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "wattstream"


def ensure_jars(
    progress: Callable[[int, int], None] = lambda done, total: None, cache: Path | None = None
) -> list[Path]:
    """Paths of all pinned jars, downloaded where they are missing and each equal to its checksum.

    `progress(done, total)` is called in bytes while something is downloaded, and never when the cache has everything.
    Raises WattStreamError when a jar can't be had or is not what was pinned.
    """
    folder = (cache or cache_dir()) / "jars"
    folder.mkdir(parents=True, exist_ok=True)
    jars = pinned_jars()
    with _exclusive(folder / ".lock"):
        missing = [jar for jar in jars if not _is_intact(folder / jar.filename, jar)]
        if missing:
            _download(missing, folder, progress)
    return [folder / jar.filename for jar in jars]


def _is_intact(path: Path, jar: Jar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(jars: list[Jar], folder: Path, progress: Callable[[int, int], None]) -> None:
    from jgo.config import (
        GlobalSettings,
    )  # the download alone needs jgo, and a start from the cache should not wait for it
    from jgo.maven import MavenContext, PythonResolver

    total = sum(jar.size for jar in jars)
    done = 0

    @contextmanager
    def count_bytes(filename: str, size: int) -> Iterator[Callable[[int], None]]:
        received = 0

        def update(count: int) -> None:
            nonlocal received
            received += count
            progress(min(done + received, total), total)

        yield update

    progress(0, total)
    # jgo writes in place: a staging folder keeps a torn download out of the cache.
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as staging:
        context = MavenContext(
            resolver=PythonResolver(progress_callback=count_bytes),
            repo_cache=Path(staging),
            remote_repos=GlobalSettings.load().repositories or None,
        )
        for jar in jars:
            try:
                fetched = Path(context.create_dependency(jar.coordinate).artifact.resolve())
            except Exception as error:  # jgo lets whatever requests raises pass, and RuntimeError for "not found"
                raise WattStreamError(
                    f"Could not download {jar.coordinate} for the embedded Kafka broker: {error}\n"
                    "Check the network (a mirror can be named under [repositories] in jgo's config file) and start "
                    f"again: what was fetched is kept in {folder}. Or point WATTSTREAM_KAFKA at a broker of your own."
                ) from error
            digest = _sha256(fetched)
            if digest != jar.sha256:
                raise WattStreamError(
                    f"{jar.coordinate} is not the jar that was pinned: SHA-256 {digest}, expected {jar.sha256}.\n"
                    "It was not kept. A proxy or mirror may have altered it: see where it comes from, then start again."
                )
            fetched.replace(folder / jar.filename)
            done += jar.size
            progress(done, total)


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Two stacks that start at once download once."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def resolve(coordinates: list[str]) -> list[Jar]:
    """Resolve root artifacts with all they need; for renewing kafka_jars.txt."""
    from jgo.maven import MavenContext, PythonResolver

    with tempfile.TemporaryDirectory() as cache:
        context = MavenContext(resolver=PythonResolver(), repo_cache=Path(cache))
        roots = [context.create_dependency(coordinate) for coordinate in coordinates]
        _, nodes = context.resolver.get_dependency_list(roots)
        artifacts = [root.artifact for root in roots] + [node.dep.artifact for node in nodes]
        jars: list[Jar] = []
        for artifact in artifacts:
            path = Path(artifact.resolve())
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            jars.append(Jar(coordinate, path.stat().st_size, _sha256(path)))
    return sorted(jars, key=lambda jar: jar.coordinate)


if __name__ == "__main__":
    for pinned in resolve(sys.argv[1:]):
        print(pinned.sha256, pinned.size, pinned.coordinate)
