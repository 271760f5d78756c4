"""A real broker and engine for a whole test session, on ports that the system picks, in a folder of their own."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep, tail
from pipelines.migrate import migrate
from pipelines.topics import create_topics
from schemas.settings import Settings

NO_END = "2106-02-07"
"""The day in board.sql until which emitters are expected."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the parts of its stack said last, beside a test that failed: where it ran, nobody can look later."""
    report = yield
    homes = {value.home for value in getattr(item, "funcargs", {}).values() if isinstance(value, Settings)}
    if report.failed:
        for log in (log for home in homes for log in sorted((home / "logs").glob("*.log"))):
            report.sections.append((f"end of {log.name}", tail(log, 60)))
    return report


@pytest.fixture(autouse=True)
def patient_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine workers may need longer than a user is kept waiting; it returns as soon as they are done."""
    monkeypatch.setattr("pipelines.verify.WAIT_SECONDS", 150.0)


@pytest.fixture(scope="session")
def stack_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a stack that is not started: 20 free ports and an empty home."""
    return Settings(home=tmp_path_factory.mktemp("stack"), port_base=free_ports(20))


@pytest.fixture(scope="session")
def broker(stack_settings: Settings) -> Iterator[EmbeddedKafka]:
    """The embedded broker, its topics created."""
    with EmbeddedKafka(stack_settings.home, stack_settings.port("kafka")) as kafka:
        create_topics(stack_settings)
        yield kafka


@pytest.fixture(scope="session")
def engine(stack_settings: Settings) -> Iterator[EmbeddedClickHouse]:
    """The embedded ClickHouse server, its tables migrated."""
    with EmbeddedClickHouse(stack_settings.home, stack_settings.port("clickhouse")) as clickhouse:
        migrate(stack_settings)
        yield clickhouse


@pytest.fixture(scope="session")
def stack_parts(stack_settings: Settings, broker: EmbeddedKafka, engine: EmbeddedClickHouse) -> Iterator[Settings]:
    """Settings that point at a running broker and engine, topics and tables there; nothing is left afterwards."""
    yield stack_settings
    sweep(stack_settings.home)


@pytest.fixture(scope="session")
def fill_board() -> Callable[..., None]:
    """Puts the six hours into the tables that the dashboards are tested with: 2026-11-20 from 06:00 on.

    ``expected_until``: the day on which the emitters end, by default never.
    """

    def fill(settings: Settings, expected_until: str = NO_END) -> None:
        writer = settings.clickhouse_client("writer")
        script = (Path(__file__).parents[1] / "data" / "board.sql").read_text()
        assert NO_END in script
        for statement in script.replace(NO_END, expected_until).split(";\n"):
            if "INSERT" in statement:
                writer.command(statement)

    return fill


@pytest.fixture(scope="module")
def own_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Settings]]:
    """Starts a broker and an engine for one module alone, topics and tables there, with the settings it gives."""
    with ExitStack() as parts:

        def start(name: str, **given: Any) -> Settings:
            home = tmp_path_factory.mktemp(name)
            made = Settings(home=home, port_base=free_ports(20), **given)
            parts.callback(sweep, home)
            parts.enter_context(EmbeddedKafka(home, made.port("kafka"), made.port("controller")))
            parts.enter_context(EmbeddedClickHouse(home, made.port("clickhouse")))
            create_topics(made)
            migrate(made)
            return made

        yield start


@pytest.fixture(scope="module")
def writer(settings: Settings) -> Iterator[Client]:
    """The user that may write, in the stack of the module's `settings`."""
    with settings.clickhouse_client("writer") as client:
        yield client


@pytest.fixture(scope="module")
def viewer(settings: Settings) -> Iterator[Client]:
    """The user that may read, in the stack of the module's `settings`."""
    with settings.clickhouse_client("viewer") as client:
        yield client


Meanwhile = Callable[[Callable[[], object], float], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def meanwhile() -> Meanwhile:
    """Calls a function again and again in a thread, with a pause in s, until it is left; then raises what it raised."""

    @contextmanager
    def going_on(step: Callable[[], object], pause: float) -> Iterator[None]:
        ended = threading.Event()
        raised: list[BaseException] = []

        def loop() -> None:
            try:
                while not ended.wait(pause):
                    step()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if raised:  # before what came of it
                raise raised[0]

    return going_on
