"""Settings: what is off is told with what to do about it, and a secret is told nowhere."""

import os
from pathlib import Path
from typing import Any

import certifi
import pytest

from pipelines.local.access import load_passwords
from schemas.errors import UsageError, WattStreamError
from schemas.settings import USERS, Settings, generated_passwords, load

SECRET = "correct-horse"
SASL = {"kafka": "k:9092", "kafka_security_protocol": "SASL_SSL", "kafka_username": "u", "kafka_password": SECRET}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (SASL | {"kafka_username": None}, "give WATTSTREAM_KAFKA_USERNAME and WATTSTREAM_KAFKA_PASSWORD"),
        (SASL | {"kafka_sasl_mechanism": "GSSAPI"}, "kafka_sasl_mechanism"),
        (SASL | {"kafka_ca_file": "/nowhere"}, "kafka_ca_file: is no file of certificates in PEM form .No such file"),
        (SASL | {"kafka_ca_file": __file__}, "kafka_ca_file: is no file of certificates in PEM form"),
        (SASL | {"clickhouse_ca_file": __file__}, "clickhouse_ca_file: is no file of certificates in PEM form"),
        ({"clickhouse": f"https://writer:{SECRET}@c:8443"}, "clickhouse: .*by their own variables"),
        ({"clickhouse": f"writer:{SECRET}@c:8443"}, "clickhouse: .*by their own variables"),
        ({"grafana": f"https://admin:{SECRET}@g"}, "grafana: .*by their own variables"),
        ({"grafana_clickhouse": f"https://viewer:{SECRET}@c"}, "grafana_clickhouse: .*by their own variables"),
        ({"kafka_password": SECRET, "workers": 0}, "workers: .* .given: 0"),
    ],
    ids=str,
)
def test_a_setting_that_is_off_is_told_in_one_line_without_a_secret(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        load(**given)
    assert SECRET not in str(error.value)
    assert error.value.__cause__ is None
    assert "\n" not in str(error.value)


def test_secrets_are_not_in_what_settings_print(tmp_path: Path) -> None:
    given = {f"clickhouse_{user}_password": SECRET for user in USERS} | {"grafana_token": SECRET} | SASL
    made = Settings.model_validate({"home": tmp_path, "kafka_ca_file": certifi.where()} | given)
    assert SECRET not in f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"


def test_generated_passwords_are_readable_by_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = tmp_path / "home" / "secrets.json"
        passwords = generated_passwords(file)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert list(file.parent.iterdir()) == [file]
    assert generated_passwords(file) == passwords
    assert len(set(passwords.values())) == len(USERS)
    assert min(map(len, passwords.values())) >= 32


@pytest.mark.parametrize("content", [b"", b'{"writer": "x', b'{"writer": "x"}', b"[]", b"7", b"\xff\xfe"])
def test_damaged_passwords_are_told_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_bytes(content)
    file.chmod(0o600)
    for read in (generated_passwords, load_passwords):
        with pytest.raises(WattStreamError, match=r"secrets\.json.*or delete it to make new passwords"):
            read(file)
    assert file.read_bytes() == content


def test_the_admins_password_joins_a_file_that_is_there_and_changes_no_other(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    before = generated_passwords(file)
    assert set(before) == set(USERS)
    after = generated_passwords(file, admin=True)
    assert set(after) == {*USERS, "admin"}
    assert after["admin"] not in before.values()
    assert {user: after[user] for user in USERS} == before == generated_passwords(file)
    assert generated_passwords(file, admin=True) == after
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]


def test_the_admin_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert set(Settings(home=tmp_path).passwords()) == set(USERS)
    assert set(Settings(home=tmp_path, clickhouse_admin=True).passwords()) == {*USERS, "admin"}
