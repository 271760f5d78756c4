"""The lock of the server's folder, also where a kill left it half-written, and a restore that was cut short."""

import os
from pathlib import Path

import pytest

from pipelines.local.clickhouse_folder import DRAFT, ENGINE, hold, is_held, require_whole
from schemas.errors import WattStreamError


@pytest.mark.parametrize("content", [b"", b"12", b"\xff\xfe\x00 half"])
def test_what_a_kill_left_in_the_lock_file_is_of_no_account(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "server.lock").write_bytes(content)
    assert not is_held(tmp_path)
    lock = hold(tmp_path)
    assert (tmp_path / "server.lock").read_text() == f"{os.getpid()}\n"
    os.close(lock)


def test_who_has_it_is_unknown_where_the_lock_file_does_not_say(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    (tmp_path / "server.lock").write_bytes(b"\xff\xfe\x00 half")
    with pytest.raises(WattStreamError, match="in use by process unknown"):
        hold(tmp_path)
    assert is_held(tmp_path)
    os.close(lock)


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WattStreamError, match="--home"):
        hold(tmp_path / "file" / "clickhouse")


def test_tables_that_a_restore_did_not_put_in_place_are_not_taken_for_none(tmp_path: Path) -> None:
    require_whole(tmp_path)
    (tmp_path / DRAFT).mkdir()
    with pytest.raises(WattStreamError, match="wattstream restore"):
        require_whole(tmp_path)
    (tmp_path / ENGINE).mkdir()  # the home's own tables are still there
    require_whole(tmp_path)
