import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.feed.manifest import Manifest, Part, Tally, read, sendings
from schemas.errors import WattStreamError

TOPIC = "wattstream.tokens.v1"


def test_what_was_acknowledged_is_known_and_the_rest_unknown(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "one")
    first = manifest.intend(TOPIC, {"a": Tally(3, 2**64 - 1), "b": Tally(2, 5)})
    manifest.intend(TOPIC, {"a": Tally(10, 7)})
    manifest.acknowledge(first, [Part(0, 10, 12, 3, 3, 2**64 - 1), Part(1, 0, 1, 2, 2, 5)])
    manifest.close()
    totals = read(tmp_path)[TOPIC]
    assert totals.intended == Tally(15, 11)
    assert totals.acknowledged == Tally(5, 4)
    assert totals.unknown == Tally(10, 7)


def test_all_producers_of_a_home_are_counted(tmp_path: Path) -> None:
    for name in ("one", "one", "two"):
        manifest = Manifest(tmp_path, name)
        manifest.acknowledge(manifest.intend(TOPIC, {"a": Tally(1, 1)}), [Part(0, 0, 0, 1, 1, 1)])
    assert read(tmp_path)[TOPIC].acknowledged == Tally(3, 3)


def test_a_record_torn_by_a_kill_is_no_error_and_its_sending_unknown(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "one")
    manifest.acknowledge(manifest.intend(TOPIC, {"a": Tally(1, 1)}), [Part(0, 0, 0, 1, 1, 1)])
    size = manifest.path.stat().st_size
    os.truncate(manifest.path, size - 5)
    assert read(tmp_path)[TOPIC].unknown == Tally(1, 1)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "one")
    manifest.path.write_bytes(manifest.path.read_bytes() + b'{"ack": 5, "parts": []}\n')
    with pytest.raises(WattStreamError, match="line 2"):
        list(sendings(tmp_path))


def test_an_intent_survives_the_kill_of_its_producer(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipelines.feed.manifest import Manifest, Tally\n"
        f"Manifest(Path(sys.argv[1]), 'k').intend({TOPIC!r}, {{'a': Tally(4, 9)}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert read(tmp_path)[TOPIC].unknown == Tally(4, 9)


tallies = st.builds(Tally, st.integers(0, 10**9), st.integers(0, 2**64 - 1))


@given(tallies, tallies, tallies)
def test_tallies_add_in_any_order_and_take_back(a: Tally, b: Tally, c: Tally) -> None:
    assert a.plus(b).plus(c) == c.plus(a.plus(b))
    assert a.plus(b).minus(b) == a
