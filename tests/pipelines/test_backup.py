"""Backup and restore of a stopped home: whole, held against checksums, and nothing is overwritten unasked."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import backup as module
from pipelines.backup import MANIFEST, backup, order, restore
from pipelines.local.clickhouse_folder import DRAFT, hold
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep
from schemas.errors import UsageError, WattStreamError
from schemas.settings import Settings
from schemas.tables import HOURLY


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a home that doesn't run: a table with rows, an empty one, a view, and one that isn't a MergeTree."""
    folder = tmp_path_factory.mktemp("backup")
    settings = Settings(home=folder / "home", port_base=free_ports(20))
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        client = settings.clickhouse_client("writer")
        client.command("CREATE TABLE readings (a Int64, m Int8) ENGINE = MergeTree PARTITION BY m ORDER BY a")
        client.command("INSERT INTO readings SELECT number, number % 3 FROM numbers(3000)")
        client.command("CREATE TABLE empty (a Int64) ENGINE = MergeTree ORDER BY a")
        client.command("CREATE VIEW total AS SELECT sum(a) AS total FROM readings")
        client.command("CREATE TABLE kept (a Int64) ENGINE = Log")
        client.close()
    left = settings.home / "clickhouse" / "engine" / "shadow" / f"backup_{2**22 + 1}" / "store"
    left.mkdir(parents=True)  # of a backup that was killed
    steps: list[tuple[int, int]] = []
    manifest = backup(settings, folder / "to", progress=lambda _, done, total: steps.append((done, total)))
    assert manifest.tables == ["empty", "readings"]
    assert manifest.without_data == ["kept"]
    assert len(steps) == len(manifest.files)
    assert list(left.parent.parent.glob("backup_*")) == []
    sweep(settings.home)
    return folder / "to"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_restored_home_has_the_tables_and_goes_on(whole: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "other", port_base=free_ports(20))
    restore(settings, whole)
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        client = settings.clickhouse_client("writer")
        assert client.query("SELECT count(), total FROM readings, total GROUP BY total").result_rows == [
            (3000, 4498500)
        ]
        assert client.query("SELECT count() FROM empty").result_rows == [(0,)]
        client.command("INSERT INTO readings VALUES (1, 1)")
        client.command("OPTIMIZE TABLE readings FINAL")
        assert client.query("SELECT count() FROM readings").result_rows == [(3001,)]
        client.close()
    sweep(settings.home)


def test_a_home_with_tables_is_replaced_only_when_asked_and_its_own_are_kept(whole: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    _, aside = restore(settings, whole)
    assert aside is None
    engine = tmp_path / "clickhouse" / "engine"
    (engine / "mine").write_text("mine")
    with pytest.raises(WattStreamError, match="--replace"):
        restore(settings, whole)
    _, aside = restore(settings, whole, replace=True)
    assert aside is not None
    assert (aside / "mine").read_text() == "mine"
    assert not (engine / "mine").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("name", ["data.bin", "readings.sql"])
def test_a_damaged_file_is_named_and_nothing_is_put_in_place(
    damage: Callable[[Path], None], name: str, copy: Path, tmp_path: Path
) -> None:
    file = next(copy.rglob(name))
    damage(file)
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(WattStreamError, match="take another") as caught:
        restore(settings, copy)
    assert str(file) in str(caught.value)
    left = {path.name for path in (settings.home / "clickhouse").iterdir()}
    assert left == {"server.lock"}


@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda file: file.write_text("[]")])
def test_what_has_no_whole_manifest_is_no_backup(damage: Callable[[Path], None], copy: Path, tmp_path: Path) -> None:
    damage(copy / MANIFEST)
    with pytest.raises(WattStreamError, match=r"[Tt]ake another"):
        restore(Settings(home=tmp_path / "home"), copy)
    assert not (tmp_path / "home").exists()


def test_a_manifest_can_not_lead_out_of_the_backup(copy: Path, tmp_path: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["../../outside"] = [0, ""]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(WattStreamError, match="damaged"):
        restore(Settings(home=tmp_path / "home"), copy)


def test_a_backup_that_is_interrupted_is_none_and_leaves_the_engine_as_it_was(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home", port_base=free_ports(20))
    restore(settings, whole)

    def interrupt(step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(settings, tmp_path / "to", progress=interrupt)
    assert list((tmp_path / "to").rglob("*.*"))
    assert list((settings.home / "clickhouse" / "engine" / "shadow").glob("backup_*")) == []
    with pytest.raises(WattStreamError, match="cut short"):
        restore(Settings(home=tmp_path / "other"), tmp_path / "to")
    with pytest.raises(UsageError, match="not empty"):
        backup(settings, tmp_path / "to")
    sweep(settings.home)


def test_a_restore_that_is_interrupted_leaves_the_home_as_it_was(whole: Path, tmp_path: Path) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(Settings(home=tmp_path), whole, progress=interrupt)
    assert {path.name for path in (tmp_path / "clickhouse").iterdir()} == {"server.lock"}
    (tmp_path / "clickhouse" / DRAFT).mkdir()  # killed, it could not clean up; the next one does
    restore(Settings(home=tmp_path), whole)
    assert not (tmp_path / "clickhouse" / DRAFT).exists()


def test_a_home_that_runs_is_not_restored_into(whole: Path, tmp_path: Path) -> None:
    lock = hold(tmp_path / "clickhouse")
    with pytest.raises(WattStreamError, match="in use"):
        restore(Settings(home=tmp_path), whole, replace=True)
    os.close(lock)


def test_a_server_of_ones_own_is_not_ours_to_copy(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, clickhouse="http://db:8123")
    with pytest.raises(UsageError, match="BACKUP DATABASE"):
        backup(settings, tmp_path / "to")
    with pytest.raises(UsageError, match="RESTORE DATABASE"):
        restore(settings, tmp_path / "to")


def test_a_home_without_tables_is_told(tmp_path: Path) -> None:
    with pytest.raises(WattStreamError, match="--home"):
        backup(Settings(home=tmp_path), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_tables_are_frozen_in_the_reverse_of_the_order_in_which_a_flush_writes_them() -> None:
    names = [
        "tokens",
        "power",
        "deadletters",
        "claims",
        "tokens_1m",
        "usage_1m",
        "ingest_ranges",
        "migrations",
        "sites",
    ]
    found = order(dict.fromkeys([*names, *HOURLY.values()]))
    assert found[:3] == ["migrations", "ingest_ranges", "claims"]
    assert found[-5:] == ["tokens_1m", "usage_1m", "deadletters", "power", "tokens"]


def test_a_table_that_is_dropped_meanwhile_is_left_out_and_one_that_is_exchanged_begins_it_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home", port_base=free_ports(20))
    restore(settings, whole)
    freeze, calls = module._freeze, []

    def meddling(client: object, name: str, shadow: str) -> None:
        freeze(client, name, shadow)  # type: ignore[arg-type]
        calls.append(name)
        if calls.count("readings") == 1 and name == "readings":
            writer = settings.clickhouse_client("writer")
            writer.command("CREATE TABLE other AS readings")
            writer.command("INSERT INTO other VALUES (7, 0)")
            writer.command("EXCHANGE TABLES other AND readings")
            writer.command("DROP TABLE other SYNC")
            writer.command("DROP TABLE empty SYNC")
            writer.close()

    monkeypatch.setattr(module, "_freeze", meddling)
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        manifest = backup(settings, tmp_path / "to")
    assert manifest.tables == ["readings"]
    assert calls.count("readings") == 2
    assert not any("empty" in path for path in manifest.files)
    structure = next((tmp_path / "to").rglob("readings.sql")).read_text()
    (table,) = re.findall(r"UUID '([0-9a-f-]+)'", structure)
    assert [path.split("/")[3] for path in manifest.files if path.endswith("data.bin")] == ["0_1_1_0"]
    assert all(table in path for path in manifest.files if path.endswith("data.bin"))
    sweep(settings.home)
