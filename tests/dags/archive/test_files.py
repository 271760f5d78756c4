"""What was archived comes back as it was, however it was cut; and nothing that is broken passes for whole."""

import errno
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dags.archive import files
from dags.archive.files import ArchiveFile, sweep
from dags.archive.messages import DAY_MS, SCHEMA, Messages, by_day
from dags.archive.store import Archive, Gap, Missing, missing
from schemas.errors import WattStreamError

TOPIC, PARTITION, ID = "wattstream.power.v1", 3, "id-1"
TODAY = date(2026, 5, 1)
MIDNIGHT = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp() * 1000)

Row = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

names = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=5)), max_size=3)
rows = st.lists(
    st.tuples(
        st.integers(1, 3),  # steps of the offset: gaps are legal
        st.integers(MIDNIGHT - DAY_MS, MIDNIGHT + DAY_MS),  # and a broker's clock may be set back
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=50),
        headers,
    ),
    max_size=30,
)
# A folder a case, not a fixture for all of them; and no deadline, since every file is synced to the disk.
cases = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def placed(steps: list[Row], start: int) -> list[Row]:
    placed, at = [], start - 1
    for step, *rest in steps:
        at += step
        placed.append((at, *rest))
    return placed


def batch(some: list[Row]) -> pa.RecordBatch:
    messages = Messages()
    for row in some:
        messages.add(*row)
    return messages.batch(PARTITION)


def rows_of(batches) -> list[Row]:
    found = []
    for one in batches:
        assert one.schema == SCHEMA
        plain = one.set_column(2, "timestamp", one.column("timestamp").cast(pa.int64())).to_pylist()
        assert {row["partition"] for row in plain} <= {PARTITION}
        found += [
            (r["offset"], r["timestamp"], r["key"], r["value"], [(h["name"], h["value"]) for h in r["headers"]])
            for r in plain
        ]
    return found


def add(store: Archive, wanted: Missing, *runs: list[Row]) -> list[ArchiveFile]:
    with store.lock(TOPIC):
        return list(store.write(TOPIC, ID, PARTITION, wanted, [batch(run) for run in runs if run], TODAY))


def some(first: int, end: int, day: int = 0, size: int = 10) -> list[Row]:
    return [
        (offset, MIDNIGHT + day * DAY_MS + offset, b"key", os.urandom(size), [("content-type", b"a/b")])
        for offset in range(first, end)
    ]


@cases
@given(rows, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 10**12), st.integers(0, 3), st.booleans())
def test_messages_cut_in_any_runs_and_batches_come_back_as_they_were(steps, cuts, start, rest, one_by_one) -> None:
    given = placed(steps, start)
    bounds = [0, *sorted(min(cut, len(given)) for cut in cuts), len(given)]
    with TemporaryDirectory() as folder:
        store = Archive(Path(folder))
        at = start
        for a, b in pairwise(bounds):
            run = given[a:b]
            end = (run[-1][0] + 1 if run else at) + (rest if b == len(given) else 0)
            add(store, Missing(at, at, end), *([[row] for row in run] if one_by_one else [run]))
            at = end
        chain = store.chain(TOPIC, PARTITION)
        assert not chain.damaged
        assert not chain.gaps()
        assert [file.problem() for file in chain.files] == [None] * len(chain.files)
        assert rows_of(store.messages(TOPIC, PARTITION)) == given
        if at > start:
            assert (chain.start, chain.end, chain.reach) == (start, at, at)
            assert sum(file.stretch.absent for file in chain.files) == at - start - len(given)
        assert missing(chain, start, at) == []
        for file in chain.files:
            assert file.path.parent.name == file.stretch.day
            assert file.path.name == f"{file.stretch.start:020}.parquet"
            found = rows_of(file.batches())
            assert {datetime.fromtimestamp(row[1] / 1000, UTC).date().isoformat() for row in found} <= {
                file.stretch.day
            }
        assert list(Path(folder).rglob("*.part")) == []


@given(rows, st.integers(0, 40), st.integers(0, 40))
@cases
def test_any_range_of_offsets_can_be_read(steps, first, length) -> None:
    given = placed(steps, 0)
    with TemporaryDirectory() as folder:
        store = Archive(Path(folder))
        add(store, Missing(0, 0, given[-1][0] + 1 if given else 0), given)
        wanted = [row for row in given if first <= row[0] < first + length]
        assert rows_of(store.messages(TOPIC, PARTITION, first, first + length)) == wanted


@given(rows)
def test_cutting_by_day_changes_nothing_else(steps) -> None:
    given = placed(steps, 7)
    pieces = list(by_day(batch(given)))
    assert rows_of(piece for _, piece in pieces) == given
    for day, piece in pieces:
        assert {datetime.fromtimestamp(row[1] / 1000, UTC).date() for row in rows_of([piece])} == {day}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ArchiveFile:
    (file,) = add(Archive(tmp_path_factory.mktemp("whole")), Missing(0, 0, 50), some(0, 50))
    return file


@given(st.data(), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(whole: ArchiveFile, data, bit: int) -> None:
    checksum = whole.path.with_suffix(".xxh128")
    for path, digits in ((whole.path, None), (checksum, 32)):
        right = path.read_bytes()
        place = data.draw(st.integers(0, (digits or len(right)) - 1))
        broken = bytearray(right)
        broken[place] ^= 1 << bit
        path.write_bytes(broken)
        try:
            assert whole.problem() is not None
        finally:
            path.write_bytes(right)
    assert whole.problem() is None


@pytest.mark.parametrize("length", [0, 1, 100, -1, -9])
def test_a_cut_file_is_told_as_damaged(tmp_path: Path, length: int) -> None:
    store = Archive(tmp_path)
    (file,) = add(store, Missing(0, 0, 50), some(0, 50))
    file.path.write_bytes(file.path.read_bytes()[:length])
    chain = store.chain(TOPIC, PARTITION)
    assert chain.files == ()
    assert str(file.path) in chain.damaged[0]
    assert file.problem() is not None


def test_a_file_without_its_checksum_is_not_whole(tmp_path: Path) -> None:
    (file,) = add(Archive(tmp_path), Missing(0, 0, 5), some(0, 5))
    file.path.with_suffix(".xxh128").unlink()
    assert "no checksum" in (file.problem() or "")


def test_a_right_checksum_of_wrong_messages_is_found(tmp_path: Path) -> None:
    """Whoever writes files like ours must hold to what their footer says."""
    (a,) = add(Archive(tmp_path / "a"), Missing(0, 0, 5), some(0, 5))
    claims = files.Stretch(**(a.stretch.__dict__ | {"messages": 4}))
    assert "has 5 messages" in (ArchiveFile(a.path, claims).problem() or "")
    claims = files.Stretch(**(a.stretch.__dict__ | {"day": "2026-05-02"}))
    assert "another day" in (ArchiveFile(a.path, claims).problem() or "")


def test_the_checksum_is_what_xxhsum_reads(whole: ArchiveFile) -> None:
    digest, name = whole.path.with_suffix(".xxh128").read_text().split()
    assert name == whole.path.name
    assert digest == xxhash.xxh3_128_hexdigest(whole.path.read_bytes())


def test_large_runs_end_files_and_row_groups_within_the_bound(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_BYTES", 20_000)
    monkeypatch.setattr(files, "FILE_BYTES", 100_000)
    store = Archive(tmp_path)
    written = add(store, Missing(0, 0, 400), *([row] for row in some(0, 400, size=1000)))
    assert len(written) > 3
    assert rows_of(store.messages(TOPIC, PARTITION))[-1][0] == 399
    sizes = [one.nbytes for file in written for one in file.batches()]
    assert len(sizes) > 3 * len(written)
    assert max(sizes) < 25_000


def test_offsets_that_expired_unread_are_a_gap_for_ever(tmp_path: Path) -> None:
    store = Archive(tmp_path)
    add(store, Missing(0, 0, 10), some(0, 10))
    (wanted,) = missing(store.chain(TOPIC, PARTITION), 15, 20)
    assert wanted == Missing(10, 15, 20)
    add(store, wanted, some(15, 20))
    chain = store.chain(TOPIC, PARTITION)
    assert chain.gaps() == [Gap(10, 15, expired=True)]
    assert chain.reach == 20
    assert missing(chain, 15, 20) == []
    assert [row[0] for row in rows_of(store.messages(TOPIC, PARTITION))] == [*range(10), *range(15, 20)]


def test_files_that_are_gone_are_fetched_again_as_far_as_the_log_has_them(tmp_path: Path) -> None:
    store = Archive(tmp_path)
    written = [add(store, Missing(a, a, a + 10), some(a, a + 10))[0] for a in (0, 10, 20)]
    written[1].path.unlink()
    chain = store.chain(TOPIC, PARTITION)
    assert chain.gaps() == [Gap(10, 20, expired=False)]
    assert chain.reach == 10
    assert missing(chain, 25, 30) == []
    (wanted,) = missing(chain, 15, 30)
    assert wanted == Missing(10, 15, 20)
    add(store, wanted, some(15, 20))
    assert store.chain(TOPIC, PARTITION).gaps() == [Gap(10, 15, expired=True)]
    written[0].path.unlink()
    assert missing(store.chain(TOPIC, PARTITION), 5, 30) == [Missing(5, 5, 15)]


def test_an_archive_that_is_not_whole_is_not_read_as_if_it_were(tmp_path: Path) -> None:
    store = Archive(tmp_path)
    written = [add(store, Missing(a, a, a + 10), some(a, a + 10))[0] for a in (0, 10, 20)]
    right = written[1].path.read_bytes()
    written[1].path.write_bytes(right[:-3])
    with pytest.raises(WattStreamError, match="no footer"):
        list(store.messages(TOPIC, PARTITION))
    written[1].path.unlink()
    with pytest.raises(WattStreamError, match="offsets 10 to 19 is gone"):
        list(store.messages(TOPIC, PARTITION, 0, 11))
    assert len(rows_of(store.messages(TOPIC, PARTITION, 20))) == 10
    assert len(rows_of(store.messages(TOPIC, PARTITION, 0, 10))) == 10


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch, step: str) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files._Hashed if step == "write" else os, step, full)
    with pytest.raises(OSError, match="No space left") as error:
        add(Archive(tmp_path), Missing(0, 0, 5), some(0, 5))
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert list(tmp_path.rglob("*.par*")) == []


def test_what_failed_half_way_leaves_nothing(tmp_path: Path) -> None:
    store = Archive(tmp_path)

    def ending():
        yield batch(some(0, 5))
        raise WattStreamError("Kafka went away")

    with pytest.raises(WattStreamError, match="went away"), store.lock(TOPIC):
        list(store.write(TOPIC, ID, PARTITION, Missing(0, 0, 10), ending(), TODAY))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    store = Archive(tmp_path)
    with store.lock(TOPIC):
        with pytest.raises(WattStreamError, match="Another run"), store.lock(TOPIC):
            pass
        with store.lock("wattstream.tokens.v1"):
            pass


def test_a_folder_that_can_not_be_made_is_told_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WattStreamError, match="WATTSTREAM_ARCHIVE"), Archive(tmp_path / "file").lock(TOPIC):
        pass


# A process that forks one for each home: what a kill -9 before the n-th call that changes the disk leaves.
DYING = """
import os, signal, sys
from datetime import date
from pathlib import Path
import pandas  # Arrow loads it at the first array: once here, not in each child
from dags.archive import files
from dags.archive.messages import Messages
from dags.archive.store import Archive, missing

left = 0

def before(call):
    def counted(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counted

for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (files.pq.ParquetWriter, "write_table"),
                    (files.pq.ParquetWriter, "close"), (files._Hashed, "write"), (files, "_problem")):
    setattr(owner, name, before(getattr(owner, name)))

def archive(home):
    store = Archive(home)
    with store.lock("t"):
        for wanted in missing(store.chain("t", 0), 0, 20):
            messages = Messages()
            for offset in range(wanted.start, 20):
                messages.add(offset, offset // 10 * 86_400_000, None, b"%d" % offset, None)
            list(store.write("t", "id", 0, wanted, [messages.batch(0)], date(1970, 1, 4)))

for step, home in enumerate(sys.argv[2:], 1):
    child = os.fork()
    if child == 0:
        left = step if sys.argv[1] == "dying" else 0
        archive(Path(home))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_kill_between_any_two_steps_leaves_whole_files_or_none(tmp_path: Path) -> None:
    homes = [tmp_path / str(step) for step in range(90)]

    def statuses(how: str) -> list[int]:
        command = [sys.executable, "-c", DYING, how, *map(str, homes)]
        return [int(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.split()]

    ends = statuses("dying")
    assert ends == sorted(ends)  # -9 up to the last step, and 0 from there on
    assert ends.count(-signal.SIGKILL) > 50
    assert ends[-1] == 0
    found: set[int] = set()
    for home in homes:
        chain = Archive(home).chain("t", 0)
        assert not chain.damaged
        assert [file.problem() for file in chain.files] == [None] * len(chain.files)
        found.add(len(chain.files))
    assert found == {0, 1, 2}
    assert set(statuses("again")) == {0}
    for home in homes:
        offsets = [o for one in Archive(home).messages("t", 0) for o in one.column("offset").to_pylist()]
        assert offsets == list(range(20))
        assert list(home.rglob("*.part")) == []
        assert len(list(home.rglob("*.xxh128"))) == len(list(home.rglob("*.parquet"))) == 2


def test_sweeping_leaves_whole_files(tmp_path: Path) -> None:
    store = Archive(tmp_path)
    (file,) = add(store, Missing(0, 0, 5), some(0, 5))
    (file.path.parent / ".00000000000000000005.parquet.part").write_bytes(b"half")
    (file.path.parent / "00000000000000000005.xxh128").write_bytes(b"alone")
    assert sweep(tmp_path) == 2
    assert sorted(path.suffix for path in file.path.parent.iterdir()) == [".parquet", ".xxh128"]
    assert file.problem() is None
