import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, socket, sys
from pipelines.local.confinement import confine
inside, outside = map(pathlib.Path, sys.argv[1:])
if not confine(inside):
    sys.exit(3)
(inside / "made").write_text("x")
(inside / "made").rename(inside / "named")
import sqlite3  # programs stay readable
for attempt in (
    outside.read_text,
    lambda: outside.write_text("x"),
    lambda: (outside.parent / "new").touch(),
    lambda: pathlib.Path("/etc/passwd").read_text(),
    lambda: list(outside.parent.iterdir()),
):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit("reached outside")
"""


def test_confined_process_has_its_folder_and_no_other_file(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside" / "secret"
    inside.mkdir()
    outside.parent.mkdir()
    outside.write_text("secret")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(inside), str(outside)], capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        pytest.skip("this kernel has no Landlock")
    assert done.returncode == 0, done.stderr
    assert (inside / "named").read_text() == "x"
