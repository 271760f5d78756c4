"""What the doctor finds, and that every finding that is off says what to do."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipelines import doctor
from pipelines.doctor import Finding, examine
from pipelines.local.processes import free_ports
from schemas.settings import Settings


def found(settings: Settings, name: str) -> Finding:
    findings = [finding for finding in examine(settings) if finding.name == name]
    assert findings, f"nothing was said of {name}"
    return max(findings, key=lambda finding: ["ok", "warn", "fail"].index(finding.level))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", port_base=free_ports(20))


def test_looking_changes_nothing(settings: Settings) -> None:
    examine(settings)
    assert not settings.home.exists()


def test_whatever_is_off_comes_with_advice(settings: Settings) -> None:
    assert all(finding.advice for finding in examine(settings) if finding.level != "ok")


@pytest.mark.parametrize(("free", "level"), [(1 << 40, "ok"), (5 << 30, "warn"), (1 << 30, "fail")])
def test_little_disk_is_a_warning_and_very_little_a_failure(
    free: int, level: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert found(settings, "disk").level == level


def test_little_memory_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30))
    assert found(settings, "memory").level == "warn"


def test_passwords_that_others_can_read_are_a_failure(settings: Settings) -> None:
    settings.home.mkdir()
    settings.secrets_file.write_text("{}")
    os.chmod(settings.secrets_file, 0o644)
    assert "chmod 600" in found(settings, "secrets").advice


def test_jars_that_are_not_there_yet_are_announced(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTSTREAM_CACHE", str(tmp_path / "cache"))
    assert "downloads" in found(settings, "jars").advice


def test_an_outside_broker_that_does_not_answer_is_named(settings: Settings) -> None:
    address = f"127.0.0.1:{free_ports(1)}"
    finding = found(settings.model_copy(update={"kafka": address}), "kafka")
    assert finding.level == "fail"
    assert address in finding.found
    assert "WATTSTREAM_KAFKA" in finding.advice


def test_a_python_without_locked_wheels_is_a_failure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))
    assert found(settings, "python").level == "fail"
