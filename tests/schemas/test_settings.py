"""The generated passwords: whole or not there, and told where they are damaged."""

from pathlib import Path

import pytest

from pipelines.local.access import load_passwords
from schemas.errors import WattStreamError
from schemas.settings import USERS, generated_passwords


def test_passwords_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "home" / "secrets.json"
    made = generated_passwords(file)
    assert set(made) == set(USERS)
    assert len(set(made.values())) == len(USERS)
    assert file.stat().st_mode & 0o777 == 0o600
    assert generated_passwords(file) == made
    assert [path.name for path in file.parent.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize("content", [b"", b'{"writer": "x', b'{"writer": "x"}', b"[]", b"7", b"\xff\xfe"])
def test_damaged_passwords_are_told_with_what_to_do(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_bytes(content)
    file.chmod(0o600)
    for read in (generated_passwords, load_passwords):
        with pytest.raises(WattStreamError, match=r"secrets\.json.*or delete it to make new passwords"):
            read(file)
    assert file.read_bytes() == content
