"""What a stack leaves in its home, also when it was left half-written."""

from pathlib import Path

import pytest

from pipelines.local.running import settings_of_running, take_down
from pipelines.local.state import StackFiles
from schemas.errors import WattStreamError
from schemas.settings import Settings

DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"pid": 1}',
    b'{"pid": 1, "started": 0, "parts": 3, "phase": "ready"}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_state_is_told_with_what_to_do_and_down_removes_it(content: bytes, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_bytes(content)
    with pytest.raises(WattStreamError, match="wattstream down"):
        settings_of_running(tmp_path, None)
    assert take_down(Settings(home=tmp_path)) == []
    assert not state.exists()
    assert StackFiles(tmp_path).read() is None


def test_down_says_so_where_a_supervisor_can_not_be_found(tmp_path: Path) -> None:
    files = StackFiles(tmp_path)
    with files.lock(), pytest.raises(WattStreamError, match="Ctrl-C"):
        take_down(Settings(home=tmp_path))


def test_what_a_lock_file_holds_is_of_no_account(tmp_path: Path) -> None:
    (tmp_path / "supervisor.lock").write_bytes(b"\xff\x00 half")
    files = StackFiles(tmp_path)
    assert not files.is_locked()
    with files.lock():
        assert files.is_locked()
        with pytest.raises(WattStreamError, match="already running"), files.lock():
            pass
