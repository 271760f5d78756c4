"""The pinned jars: nothing that differs from its checksum reaches the class path."""

import hashlib
from pathlib import Path

import pytest

from pipelines.local import kafka_jars
from pipelines.local.kafka_jars import Jar, ensure_jars, pinned_jars
from schemas.errors import WattStreamError

pytest.importorskip("jgo")


class Registry:
    """Stands in for the download alone: what a registry would send, by coordinate."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(artifact: object) -> Path:
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"  # type: ignore[attr-defined]
            self.asked.append(coordinate)
            if coordinate not in self.contents:
                raise RuntimeError(f"{coordinate} not found")
            path = artifact.context.repo_cache / coordinate.replace(":", "_")  # type: ignore[attr-defined]
            path.write_bytes(self.contents[coordinate])
            return path

        monkeypatch.setattr("jgo.maven._core.Artifact.resolve", resolve)


def pin(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> None:
    jars = [Jar(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()]
    monkeypatch.setattr(kafka_jars, "pinned_jars", lambda: jars)


GOOD = {"a:one:1": b"first jar", "a:two:2": b"second"}


def test_the_pinned_list_names_each_file_once_and_has_the_broker_in_it() -> None:
    jars = pinned_jars()
    assert len({jar.filename for jar in jars}) == len(jars)
    assert any(jar.coordinate.startswith("org.apache.kafka:kafka_2.13:") for jar in jars)
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)


def test_jars_are_fetched_once_and_progress_ends_at_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, GOOD)
    registry = Registry(GOOD)
    registry.install(monkeypatch)
    progress: list[tuple[int, int]] = []
    paths = ensure_jars(lambda done, total: progress.append((done, total)), tmp_path)
    assert [path.read_bytes() for path in paths] == list(GOOD.values())
    assert progress[0] == (0, 15)
    assert progress[-1] == (15, 15)
    progress.clear()
    assert ensure_jars(lambda done, total: progress.append((done, total)), tmp_path) == paths
    assert (progress, len(registry.asked)) == ([], 2)


def test_a_jar_that_is_not_what_was_pinned_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, GOOD)
    Registry(GOOD | {"a:two:2": b"altered"}).install(monkeypatch)
    with pytest.raises(WattStreamError, match="a:two:2 is not the jar that was pinned"):
        ensure_jars(cache=tmp_path)
    assert [path.name for path in (tmp_path / "jars").glob("*.jar")] == ["a.one-1.jar"]


def test_a_jar_damaged_in_the_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, GOOD)
    Registry(GOOD).install(monkeypatch)
    paths = ensure_jars(cache=tmp_path)
    paths[0].write_bytes(b"first jax")
    assert ensure_jars(cache=tmp_path)[0].read_bytes() == b"first jar"


def test_a_jar_that_cannot_be_had_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, GOOD)
    Registry({}).install(monkeypatch)
    with pytest.raises(WattStreamError, match=r"(?s)Could not download a:one:1.*Check the network"):
        ensure_jars(cache=tmp_path)
