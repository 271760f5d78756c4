"""The simulated national network, as a process: `python -m pipelines.feed.network`, settings by WATTSTREAM_*.

It first lays down the history up to now, then goes on live; started again it goes on from where it was, the time that
it was away filled in as history. What it has sent is in home/simulator.json, written after the acknowledgement: a part
sent again after a kill has the same identities and changes nothing. Batches held back to be late die with
the process: they were never sent.
"""

import contextlib
import heapq
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import polars as pl
from clickhouse_connect.driver.exceptions import ClickHouseError

from pipelines.feed.assets import capacity_events, emitters
from pipelines.feed.demand import Demand
from pipelines.feed.emitters import NO_END, conform, register, registered
from pipelines.feed.history import DAY, FINE_USAGE, SECOND, history, step_seconds
from pipelines.feed.live import WINDOW, Batch, Live
from pipelines.feed.plant import Plant
from pipelines.feed.producer import Producer
from schemas.errors import WattStreamError
from schemas.events import CAPACITY, EVENT_TYPES
from schemas.settings import Settings, load

STATE_FILE = "simulator.json"

_ROWS_A_MESSAGE = 10_000
"""A day of a campus's history is one message."""

_SAVE_SECONDS = 2.0
_STOP_SECONDS = 1.5
"""Longest wait for acknowledgements after a SIGTERM; what is missing then is sent again at the next start."""

_HEAD_START_SECONDS = 10.0
"""Longest wait for the newest hours to be seen before all that was before them is sent; nobody may be reading."""

_FAR_BEHIND = 900 * SECOND
"""So far behind (the machine slept) the past is filled in coarsely instead of window by window."""

_NICENESS = 10
"""It stands for other machines: what is watched here gets the processor first."""


@dataclass
class State:
    """How far the network has come, Unix ns: ``start`` of its history, ``upto`` where all of it is acknowledged."""

    seed: int
    start: int
    upto: int
    phase: str = "history"
    """history or live, for whoever shows it; ``done`` and ``total`` days of history."""
    done: float = 0.0
    total: float = 0.0
    fine: int = 0
    """From where on usage of the past is told by the minute, Unix ns: kept, so that what is sent again is the same."""
    step: int = 0
    """Of the past, s: kept for the same reason."""

    @classmethod
    def read(cls, home: Path) -> "State | None":
        """The state that was saved, or None.

        :raises WattStreamError: where the file is damaged.
        """
        path = home / STATE_FILE
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise WattStreamError(f"{path} is damaged ({error}): delete it to begin the network anew.") from error

    def save(self, home: Path) -> None:
        """Write it, whole or not at all."""
        draft = home / f".{STATE_FILE}"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(home / STATE_FILE)


class Network:
    """The sending loop; ``stop`` ends it within a window."""

    def __init__(self, settings: Settings, producer: Producer, stop: threading.Event) -> None:
        self._settings = settings
        self._producer = producer
        self._stop = stop
        self._plant = Plant(settings.seed)
        now = time.time_ns()
        step = step_seconds(settings.history) * SECOND
        begin = now // step * step - settings.history * DAY
        saved = State.read(settings.home)
        self.state = saved or State(settings.seed, begin, begin)
        self.state.seed = settings.seed
        self._demand = Demand(settings.seed, self.state.start)
        self._live = Live(self._plant, self._demand, settings.rate)
        if saved is None:
            self._send(Batch(CAPACITY, capacity_events(self._plant, begin), "json"))

    def run(self) -> None:
        """Until it is stopped."""
        while not self._stop.is_set():
            self._lay_down_history()
            if not self._stop.is_set():
                self._go_live()

    def _lay_down_history(self) -> None:
        state = self.state
        begin, end = state.upto, time.time_ns() // WINDOW * WINDOW
        state.phase, state.total, state.done = "history", (end - begin) / DAY, 0.0
        if state.fine <= begin:
            state.fine = max(end - FINE_USAGE, begin + 1) // (60 * SECOND) * 60 * SECOND
            state.step = step_seconds((end - begin) / DAY)
            self._save(begin)
        step = state.step or step_seconds((end - begin) / DAY)
        self._expect(begin, end, step)
        newest = max(begin, min(state.fine, end))
        # The newest hours first: people look at those. They are saved as done with all before them; sent again after a
        # death, they are the same and count once.
        if not self._lay_down(newest, end, step):
            return
        if begin < newest:
            self._wait_until_seen(newest)
        if self._lay_down(begin, newest, step, save=True):
            self._save(end)

    def _wait_until_seen(self, since: int) -> None:
        """Until power of then can be queried, or ``_HEAD_START_SECONDS``: all at once came into one flush of 25 s."""
        until = time.monotonic() + _HEAD_START_SECONDS
        seen = "SELECT count() FROM power_1m WHERE minute >= fromUnixTimestamp({since:Int64})"
        away = contextlib.suppress(WattStreamError, ClickHouseError, OSError)
        with away, self._settings.clickhouse_client("viewer", send_receive_timeout=5) as client:
            while not self._stop.is_set() and time.monotonic() < until:
                if client.query(seen, parameters={"since": since // SECOND}).result_rows[0][0]:
                    return
                self._stop.wait(0.2)

    def _lay_down(self, begin: int, end: int, step: int, *, save: bool = False) -> bool:
        """Send [begin, end) ns, and save of each day but the last when it is done; False where a stop cut it short."""
        for upto, batches in history(self._plant, self._demand, begin, end, step, self.state.fine):
            for batch in batches:
                self._send(batch)
            if not self._acknowledged():
                return False
            self.state.done += (upto - begin) / DAY
            begin = upto
            if save and upto < end:
                self._save(upto)
            print(f"history: {self.state.done:.1f} of {self.state.total:.1f} days", flush=True)
        return True

    def _go_live(self) -> None:
        self.state.phase = "live"
        window = self.state.upto // WINDOW
        held: list[tuple[float, int, Batch]] = []
        tie = count()
        saved = time.monotonic()
        while not self._stop.is_set():
            ended = time.time_ns() // WINDOW
            if (ended - window) * WINDOW > _FAR_BEHIND:
                break
            if window < ended:
                for batch in self._live.batches(window):
                    if batch.wait_seconds:
                        heapq.heappush(held, (time.monotonic() + batch.wait_seconds, next(tie), batch))
                    else:
                        self._send(batch)
                window += 1
            else:
                self._stop.wait((ended + 1) * WINDOW / SECOND - time.time())
            while held and held[0][0] <= time.monotonic():
                self._send(heapq.heappop(held)[2])
            if time.monotonic() - saved > _SAVE_SECONDS and self._acknowledged():
                self._save(window * WINDOW)
                saved = time.monotonic()
        for _, _, batch in held:
            self._send(batch)
        with contextlib.suppress(WattStreamError):  # not in time: some of it will be sent again, to no effect
            self._producer.flush(_STOP_SECONDS)
            self._save(window * WINDOW)

    def _send(self, batch: Batch) -> None:
        self._producer.send(batch.event_type, batch.frame, batch.encoding, _ROWS_A_MESSAGE)

    def _acknowledged(self) -> bool:
        """Wait until everything sent is; False where the wait was cut short by a stop."""
        while self._producer.outstanding and not self._stop.is_set():
            self._producer.poll(0.1)
        return not self._producer.outstanding

    def _save(self, upto: int) -> None:
        self.state.upto = upto
        self.state.save(self._settings.home)

    def _expect(self, begin: int, end: int, step: int) -> None:
        """Register who reports: at the step of history in [begin, end) ns, at the live interval from then on.

        All spans begin and end with a minute, and those of before end where these begin, also the history's of a start
        that was cut short: completeness would expect everybody twice in a minute that two spans share.
        """
        past, now = (datetime.fromtimestamp(moment // SECOND // 60 * 60, UTC) for moment in (begin, end))
        client = self._settings.clickhouse_client("writer")
        try:
            on = ["topic", "site", "node", "emitter"]
            live = emitters(self._plant, max(1, int(self._live.interval_seconds)), now, NO_END)
            before = registered(client).filter(pl.col("until") > past, pl.col("since") < now)
            before = before.filter((pl.col("since") != past) | (past == now))  # that is registered again, below
            ended = before.join(live, on=on, how="semi").with_columns(until=pl.max_horizontal("since", pl.lit(past)))
            spans = [ended, live] if self._settings.rate else [ended]
            if past < now:
                spans.append(emitters(self._plant, step, past, now))
            register(client, pl.concat(conform(span) for span in spans))
        finally:
            client.close()


def main() -> int:
    """Run until SIGTERM or SIGINT; exit code 1 with one line of error where a part doesn't answer."""
    os.nice(_NICENESS)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load()
        producer = Producer(settings, "simulator")
        try:
            producer.require(EVENT_TYPES)
            Network(settings, producer, stop).run()
        finally:
            producer.close(timeout=0.5)
    except WattStreamError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
