import contextlib
import gzip
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from pipelines.doctor import _tables
from pipelines.local.clickhouse import main
from pipelines.local.clickhouse_folder import DRAFT, hold
from pipelines.local.processes import wait_until
from schemas.errors import WattStreamError
from schemas.settings import Settings, generated_passwords
from tests.patience import quickest
from tests.pipelines.local.conftest import PASSWORDS, Server


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("own"), "--body-limit", "100000")
    yield server
    server.stop()


def test_second_process_on_the_folder_hears_who_has_it(own):
    with pytest.raises(WattStreamError, match=f"in use by process {own.process.pid}"):
        hold(own.path)


def test_missing_or_open_passwords_are_refused(tmp_path, capsys):
    arguments = ["--path", str(tmp_path / "clickhouse"), "--port", "1"]
    assert main(arguments) == 1
    assert "secrets.json is missing" in capsys.readouterr().err
    (tmp_path / "secrets.json").write_text("{}")
    (tmp_path / "secrets.json").chmod(0o644)
    assert main(arguments) == 1
    assert "chmod 600" in capsys.readouterr().err


def test_taken_port_is_said(own, tmp_path, capsys):
    arguments = ["--path", str(tmp_path / "other"), "--port", str(own.port), "--secrets", str(own.secrets)]
    assert main(arguments) == 1
    assert f"Port {own.port}" in capsys.readouterr().err


def test_queries_are_logged_with_their_comment(own):
    client = own.client()
    client.command("SELECT 1", settings={"log_comment": "mine"})
    client.command("SYSTEM FLUSH LOGS")
    logged = client.query("SELECT query FROM system.query_log WHERE log_comment = 'mine' AND type = 'QueryFinish'")
    assert logged.result_rows == [("SELECT 1",)]
    assert client.command("SELECT count() FROM system.query_log WHERE query LIKE 'SET %' OR query LIKE 'USE %'") == 0


def test_large_body_is_refused_in_clickhouses_form(own):
    with own.http() as http:
        reply = http.post("/", content=b"SELECT '" + b"x" * 200_000 + b"'")
        assert (reply.status_code, reply.headers["x-clickhouse-exception-code"]) == (413, "307")
        bomb = gzip.compress(b" " * 1_000_000)
        reply = http.post("/", content=bomb, headers={"Content-Encoding": "gzip"})
        assert (reply.status_code, reply.headers["x-clickhouse-exception-code"]) == (413, "307")
        assert http.post("/", content="SELECT 1").text == "1\n"


def test_after_a_kill_everything_acknowledged_is_there(own):
    client = own.client()
    client.command("CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a")
    acknowledged: list[int] = []

    def insert() -> None:
        number = 0
        while True:
            try:
                client.raw_insert("t", ["a"], f"{number}\n" * 1000, fmt="TSV")
            except (OperationalError, DatabaseError):
                return
            acknowledged.append(number)
            number += 1

    writer = threading.Thread(target=insert)
    writer.start()
    while len(acknowledged) < 10:
        time.sleep(0.01)
    own.process.kill()
    own.process.wait()
    writer.join()
    own.restart()
    rows = own.client().query("SELECT a, count() FROM t GROUP BY a ORDER BY a").result_rows
    assert rows[: len(acknowledged)] == [(number, 1000) for number in acknowledged]
    assert all(count == 1000 for _, count in rows)


def test_log_holds_no_password(own):
    log = (own.folder / "log").read_text()
    assert not any(password in log for password in PASSWORDS.values())


def test_stop_is_quick_and_clean_with_queries_running(own):
    def endless() -> None:
        with own.http() as http, pytest.raises(httpx.HTTPError):
            http.post("/", content="SELECT count() FROM system.numbers").raise_for_status()

    def stopping() -> float:
        if own.process.poll() is not None:
            own.restart()
        threads = [threading.Thread(target=endless) for _ in range(3)]
        for thread in threads:
            thread.start()
        client = own.client()
        while client.command("SELECT count() FROM system.processes WHERE query LIKE '%system.numbers'") < 3:
            time.sleep(0.02)
        begun = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(60) == 0
        took = time.monotonic() - begun
        for thread in threads:
            thread.join()
        return took

    assert quickest(stopping, 5) < 5  # under 3 s on a machine that does nothing else


def test_an_insert_that_runs_when_the_server_is_told_to_stop_is_written(own):
    """One that is killed may be answered as if it were."""
    if own.process.poll() is not None:
        own.restart()
    client = own.client()
    client.command("CREATE TABLE late (a Int64) ENGINE = MergeTree ORDER BY a")
    late = "INSERT INTO late SELECT number FROM numbers(10) WHERE sleepEachRow(0.1) = 0"
    with ThreadPoolExecutor(1) as pool:
        insert = pool.submit(client.command, late)
        running = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO late%'"
        wait_until(lambda: own.client().command(running) == 1, 60, "it does not begin", 0.02)
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(60) == 0
        with contextlib.suppress(OperationalError):  # whether its answer still goes out is another matter
            insert.result(60)
    own.restart()
    assert own.client().command("SELECT count() FROM late") == 10


def test_a_truncated_file_of_the_engine_ends_the_start_with_what_to_do(tmp_path):
    server = Server(tmp_path)
    server.client().command("CREATE TABLE damaged (a Int64) ENGINE = MergeTree ORDER BY a")
    server.stop()
    (damaged,) = (server.path / "engine").glob("store/*/*/damaged.sql")
    damaged.write_bytes(damaged.read_bytes()[:40])
    log = tmp_path / "log"
    before = log.stat().st_size
    assert server.launch().wait(60) == 1
    said = log.read_bytes()[before:].decode()
    assert "wattstream restore" in said
    assert damaged.name in said
    assert "Traceback" not in said


def test_a_truncated_part_is_set_aside_and_the_doctor_tells(tmp_path):
    server = Server(tmp_path)
    client = server.client()
    client.command("CREATE TABLE damaged (a Int64, m Int8) ENGINE = MergeTree PARTITION BY m ORDER BY a")
    client.command("INSERT INTO damaged SELECT number, number % 2 FROM numbers(1000)")
    server.stop()
    settings = Settings(home=tmp_path)
    assert list(_tables(settings)) == []
    part = next((server.path / "engine").glob("store/*/*/0_*/data.bin"))
    part.write_bytes(part.read_bytes()[:100])
    server.restart()
    assert server.client().command("SELECT count() FROM damaged") == 500
    server.stop()
    (finding,) = _tables(settings)
    assert finding.level == "warn"
    assert str(part.parent.parent) in finding.found
    assert "wattstream verify" in finding.advice


@pytest.mark.parametrize("lost", ["the marks", "all of its files"])
def test_a_part_whose_files_are_empty_in_the_running_engine_is_set_aside_by_a_start_of_its_own(tmp_path, lost):
    """As a full disk leaves one; what reads it fails until the server starts anew."""
    server = Server(tmp_path)
    client = server.client()
    client.command("CREATE TABLE damaged (a Int64, m Int8) ENGINE = MergeTree PARTITION BY m ORDER BY a")
    client.command("INSERT INTO damaged SELECT number, number % 2 FROM numbers(1000)")
    marks = next((server.path / "engine").glob("store/*/*/0_*/*mrk*"))
    (tmp_path / "clickhouse" / "empty.mrk").touch()
    above = marks.parent / "../../../../../empty.mrk"
    for lie in (marks, above, tmp_path / "none", "/dev/null"):  # who only reads can say such words, too
        with pytest.raises(DatabaseError, match="Empty marks file"):
            server.client("viewer").command(f"SELECT throwIf(1, 'Empty marks file ''{lie}'': 0')")
    for file in [marks] if lost == "the marks" else list(marks.parent.iterdir()):
        file.write_bytes(b"")
    client.command("SYSTEM DROP MARK CACHE")
    with pytest.raises(DatabaseError, match=str(marks.parent)):
        client.command("SELECT sum(a) FROM damaged")
    assert server.process.wait(60) == 0
    server.restart()
    assert server.client().command("SELECT count() FROM damaged") == 500
    server.stop()
    (finding,) = _tables(Settings(home=tmp_path))
    assert finding.level == "warn"


def test_a_restore_that_was_cut_short_is_not_started_without_tables(tmp_path, capsys):
    secrets = tmp_path / "secrets.json"
    generated_passwords(secrets)
    (tmp_path / "clickhouse" / DRAFT).mkdir(parents=True)
    assert main(["--path", str(tmp_path / "clickhouse"), "--port", "1", "--secrets", str(secrets)]) == 1
    assert "Run `wattstream restore` again" in capsys.readouterr().err
