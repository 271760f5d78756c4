"""What each part is started with, and how its answers are read."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import SecretStr

from pipelines.local.parts import Worker, answers_http, settings_environment, units_of
from schemas.settings import Settings, load


@pytest.fixture
def page() -> Iterator[tuple[int, dict[str, object]]]:
    """A web server that answers every path with the status and the document that the test sets."""
    answer: dict[str, object] = {"status": 200, "document": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer["document"]).encode()
            self.send_response(int(str(answer["status"])))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], answer
    server.shutdown()


def test_a_child_reads_the_settings_that_its_parent_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(
        home=tmp_path,
        port_base=20_000,
        simulate=False,
        rate=12.5,
        clickhouse="https://db:8443",
        clickhouse_writer_password=SecretStr("s3cret"),
    )
    for name, value in settings_environment(given).items():
        monkeypatch.setenv(name, value)
    assert load() == given.model_copy(update={"home": tmp_path.resolve()})


def test_the_parts_are_those_of_the_settings(tmp_path: Path) -> None:
    names = {unit.part for unit in units_of(Settings(home=tmp_path, workers=2))}
    assert names == {"kafka", "clickhouse", "worker", "worker-2", "simulator", "board", "dagster"}
    elsewhere = Settings(home=tmp_path, kafka="broker:9092", clickhouse="http://db:8123", simulate=False)
    assert {unit.part for unit in units_of(elsewhere)} == {"worker", "board", "dagster"}


@pytest.mark.parametrize("admin", [False, True])
def test_the_admin_is_let_in_where_the_settings_say_so(tmp_path: Path, admin: bool) -> None:
    units = {unit.part: unit for unit in units_of(Settings(home=tmp_path, clickhouse_admin=admin))}
    assert ("--admin" in units["clickhouse"].server.command()) is admin


def test_no_two_parts_share_a_port(tmp_path: Path) -> None:
    ports = [unit.server.port for unit in units_of(Settings(home=tmp_path, workers=9)) if unit.server.port]
    assert len(set(ports)) == len(ports)


def test_a_page_with_an_error_of_the_server_is_no_answer(page: tuple[int, dict[str, object]]) -> None:
    port, answer = page
    for status, expected in ((200, True), (404, True), (500, False), (503, False)):
        answer["status"] = status
        assert answers_http(f"http://127.0.0.1:{port}/") is expected


@pytest.mark.parametrize("key", ["halted", "standing_still"])
def test_a_partition_that_is_halted_or_stands_still_is_told_and_is_no_reason_to_restart(
    key: str, page: tuple[int, dict[str, object]], tmp_path: Path
) -> None:
    port, answer = page
    worker = Worker("worker", [], Settings(home=tmp_path), port)
    well = {"halted": {}, "standing_still": {}, "partitions": {}}
    answer |= {"status": 503, "document": well | {key: {"power/0": "the log begins at 7, after 3"}}}
    assert worker.answers()
    assert worker.trouble == "power/0: the log begins at 7, after 3"
    answer |= {"status": 200, "document": well}
    assert worker.answers()
    assert worker.trouble is None
