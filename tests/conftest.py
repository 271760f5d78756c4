"""What all tests share: the brokers' JVM, and the fuzzing of what reads bytes of others."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pipelines.local import processes

# The brokers of tests live for seconds: the JVM's quick compiler alone takes a third of a start's CPU.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

# How long an example takes says what else the machine does, and nothing of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Ports that are free now are kept for nobody until a server listens there: tests that run beside each other in
# pytest-xdist's workers, gw0 and so on, take them from slices of their own, up to ``AT_ONCE`` from the first one on.
SLICES = 8
AT_ONCE = 20


def _slice_of(worker: str, ports: tuple[int, int]) -> tuple[int, int]:
    first, end = ports
    size = (end - first) // SLICES
    begin = first + int(worker.removeprefix("gw")) % SLICES * size
    return begin, begin + size - AT_ONCE


if "PYTEST_XDIST_WORKER" in os.environ:
    processes._PORTS = _slice_of(os.environ["PYTEST_XDIST_WORKER"], processes._PORTS)

# Hypothesis keeps every input of a run in memory.
ROUND = 2000
LONGEST_SECONDS = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-examples", type=int, default=300, help="inputs for each test that fuzzes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seconds = 180 + config.getoption("--fuzz-examples") / 20
    for item in items:
        if "fuzz" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(seconds))


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a check on as many inputs of a strategy as --fuzz-examples says, or a part of them, always the same.

    None may take longer than ``longest_seconds`` by the ``clock``: this process's CPU, unless a server does the work.
    """
    wanted: int = request.config.getoption("--fuzz-examples")

    def run(
        strategy: st.SearchStrategy[Any],
        check: Callable[[Any], None],
        part: float = 1.0,
        longest_seconds: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        done, slowest, number, began = 0, 0.0, 0, time.monotonic()

        def timed(value: Any) -> None:
            nonlocal done, slowest
            start = clock()
            check(value)
            slowest = max(slowest, clock() - start)
            done += 1

        while done < wanted * part:
            left = int(wanted * part) + 1 - done
            limits = settings(
                max_examples=min(ROUND, left),
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            limits(seed(number)(given(strategy)(timed)))()
            number += 1
        print(f"{done} inputs in {time.monotonic() - began:.0f} s, the slowest took {slowest * 1000:.0f} ms")
        assert slowest < longest_seconds

    return run


_WORDS = [b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 8]


@pytest.fixture(scope="session")
def mutated() -> Callable[..., st.SearchStrategy[bytes]]:
    """Makes of valid inputs, and pieces that mean something in them, a strategy of inputs that are hardly valid."""

    @st.composite
    def strategy(draw: st.DrawFn, seeds: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
        value = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 5))):
            at = draw(st.integers(0, len(value)))
            match draw(st.integers(0, 7)):
                case 0 if at < len(value):
                    value[at] ^= 1 << draw(st.integers(0, 7))
                case 1 if at < len(value):
                    value[at] = draw(st.integers(0, 255))
                case 2:
                    value[at:at] = draw(st.sampled_from(pieces))
                case 3:
                    del value[at : at + draw(st.integers(1, 40))]
                case 4:
                    del value[at:]
                case 5:  # as a length, aligned as Arrow has them
                    at -= at % 4
                    word = draw(st.sampled_from(_WORDS))
                    value[at : at + len(word)] = word
                case 6:  # nested, or long
                    value[at:at] = bytes(value[at : at + draw(st.integers(1, 12))]) * draw(
                        st.sampled_from([1, 5, 50, 2000])
                    )
                case _:
                    other = draw(st.sampled_from(seeds))
                    value[at:] = other[draw(st.integers(0, len(other))) :]
        return bytes(value)

    return strategy
