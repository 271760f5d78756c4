"""A full disk is one to the last byte, and free again afterwards."""

import errno
import os

import pytest

from pipelines.chaos.small_disk import SIZE_BYTES, small_disk
from schemas.errors import WattStreamError


def test_a_filled_disk_takes_no_byte_and_a_freed_one_does() -> None:
    try:
        opened = small_disk()
        disk = opened.__enter__()
    except WattStreamError as error:
        pytest.skip(str(error))
    try:
        assert disk.folder.stat().st_dev != disk.folder.parent.stat().st_dev
        assert os.statvfs(disk.folder).f_bavail * os.statvfs(disk.folder).f_frsize > SIZE_BYTES // 2
        disk.fill()
        with pytest.raises(OSError, match="No space left") as refused:
            (disk.folder / "one").write_bytes(b"1")
        assert refused.value.errno == errno.ENOSPC
        disk.free()
        (disk.folder / "one").write_bytes(b"1" * 100_000)
    finally:
        opened.__exit__(None, None, None)
    assert not disk.folder.exists()
