"""What the status screen says in words."""

from collections import namedtuple
from pathlib import Path
from unittest.mock import patch

import pytest
from rich.console import Console

from pipelines.screen import FULL_BYTES, picture

SNAPSHOT = {"parts": {}, "download": None, "notices": [], "error": None, "phase": "ready"}


@pytest.mark.parametrize(("free", "said"), [(FULL_BYTES - 1, True), (FULL_BYTES, False)])
def test_on_a_full_disk_it_says_that_what_is_shown_is_old(free: int, said: bool, tmp_path: Path) -> None:
    usage = namedtuple("usage", "free")(free)
    console = Console(width=200)
    with patch("shutil.disk_usage", return_value=usage), console.capture() as capture:
        console.print(picture(tmp_path, SNAPSHOT, None))
    assert ("is full" in capture.get()) is said
