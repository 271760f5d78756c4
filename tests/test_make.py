"""`make`: Ctrl-C reaches one process and make adds no noise, and a Python that doesn't fit is told, not tried."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The Makefile with an environment that it takes for current, whose command writes down each Ctrl-C it gets."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    command = tmp_path / ".venv" / "bin" / "wattstream"
    command.parent.mkdir(parents=True)
    command.write_text(
        f"#!{sys.executable}\n"
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    print('interrupted', flush=True)\n"
        "    time.sleep(0.5)\n"  # time for a second signal, if there is one
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "print('up with', *sys.argv[1:], flush=True)\n"
        "time.sleep(60)\n"
    )
    command.chmod(0o755)
    (tmp_path / ".venv" / ".wattstream-env").touch()
    return tmp_path


def read_until(terminal: int, text: bytes) -> bytes:
    """What the terminal shows up to and with that text, or to its end."""
    shown = b""
    while text not in shown:
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # how Linux tells that the other side is closed
            break
    return shown


def test_ctrl_c_reaches_one_process_once_and_make_stays_quiet(tree: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tree)
        os.execvp("make", ["make", "up", "ARGS=--rate 5"])
    assert b"up with up --rate 5" in read_until(terminal, b"--rate 5")
    os.write(terminal, b"\x03")
    shown = read_until(terminal, b"there is no such text")
    os.waitpid(child, 0)
    assert shown.count(b"interrupted") == 1
    assert b"***" not in shown


def test_a_python_that_does_not_fit_is_told(tree: Path) -> None:
    shutil.rmtree(tree / ".venv")
    old = tree / "bin" / "python3"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac\n')
    old.chmod(0o755)
    for tool in ("sh", "sed"):
        (old.parent / tool).symlink_to(str(shutil.which(tool)))
    make = str(shutil.which("make"))
    run = subprocess.run(
        [make, "up"], cwd=tree, env={"PATH": str(old.parent)}, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13, and python3 is Python 3.9.2" in run.stdout
    assert not (tree / ".venv").exists()


def test_help_tells_every_target(tree: Path) -> None:
    targets = {
        line.split(":")[0]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line[:1].islower() and ":" in line.split(" ")[0]
    }
    run = subprocess.run(["make", "--no-print-directory"], cwd=tree, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in run.stdout.splitlines()} == targets
