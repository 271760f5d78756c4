"""The simulated network as it happens: the batches of each quarter of a second, at any rate of events.

Meters, accelerators and links report at the shortest interval that leaves half of the rate to token usage, which
fills up the rest exactly. A window of time gives the same batches whenever it is asked for.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.feed.demand import Demand
from pipelines.feed.faults import held_back, meter_faults, sent_twice, silent
from pipelines.feed.noise import uniform
from pipelines.feed.plant import Plant
from schemas.envelope import Encoding
from schemas.events import LINKS, PACKAGES, POWER, TOKENS, UTILIZATION, EventType

WINDOW = 250_000_000
"""ns."""

_INTERVALS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 900)
_TELEMETRY = 0.5
"""Most of the rate that meters, accelerators and links may take."""

_SINGLE_EVENTS = 1000.0
"""Token events a second up to which each is a message of its own; above they travel in JSON arrays."""

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Batch:
    """Events to send together; ``wait_seconds`` after their window has ended."""

    event_type: EventType
    frame: pl.DataFrame
    encoding: Encoding
    wait_seconds: float = 0.0


class Live:
    """The batches of any window; ``rate`` in events a second."""

    def __init__(self, plant: Plant, demand: Demand, rate: float) -> None:
        self._plant = plant
        self._demand = demand
        reporting = plant.meters.height + plant.pods.height + plant.links.height
        fitting = [seconds for seconds in _INTERVALS if reporting / seconds <= _TELEMETRY * rate]
        self.interval_seconds: float = fitting[0] if fitting else _INTERVALS[-1]
        self._interval = int(self.interval_seconds * _SECOND)
        self._tokens = max(rate - reporting / self.interval_seconds, 0.0)
        self._still = rate <= 0
        self._encoding: Encoding = "json" if self._tokens <= _SINGLE_EVENTS else "array"
        # Each site reports in a window of its own, so that the rate is even.
        site = np.arange(len(plant.sites))
        turns = max(self._interval // WINDOW, 1)
        self._phase = (uniform(plant.seed, "phase", site) * turns).astype(np.int64) * WINDOW

    def batches(self, window: int) -> list[Batch]:
        """What is sent of [window × WINDOW, (window + 1) × WINDOW) ns."""
        if self._still:
            return []
        begin, end = window * WINDOW, (window + 1) * WINDOW
        found = self._telemetry(begin, end)
        events = int((window + 1) * self._tokens * WINDOW / _SECOND) - int(window * self._tokens * WINDOW / _SECOND)
        usage = self._demand.live(window, begin, end, events)
        found += self._with_faults(TOKENS, usage, self._encoding, np.zeros(1, dtype=np.int64), window)
        found.append(Batch(PACKAGES, self._demand.ledger(begin, end), "json"))
        return [batch for batch in found if batch.frame.height]

    def _telemetry(self, begin: int, end: int) -> list[Batch]:
        plant = self._plant
        if self._interval < WINDOW:
            times = np.arange(-(-begin // self._interval) * self._interval, end, self._interval, dtype=np.int64)
            reporting = np.ones(len(plant.sites), dtype=np.bool_)
        else:
            times = np.array([begin], dtype=np.int64)
            reporting = (begin - self._phase) % self._interval == 0
        if len(times) == 0 or not reporting.any():
            return []
        due = reporting & ~silent(plant, times)
        sites = np.flatnonzero(due.any(axis=0))
        made, watts = meter_faults(plant, times, due[:, plant.site_of_meter])
        power = plant.power(times, made, watts)
        use = plant.utilization(times, due[:, plant.site_of_pod])
        links = plant.link_samples(times, due[:, plant.site_of_link], self.interval_seconds)
        return [
            *self._with_faults(POWER, power, "arrow", sites, begin),
            *self._with_faults(UTILIZATION, use, "arrow", sites, begin),
            Batch(LINKS, links, "json"),
        ]

    def _with_faults(
        self, event_type: EventType, frame: pl.DataFrame, encoding: Encoding, sites: NDArray[np.int64], moment: int
    ) -> list[Batch]:
        """The frame as it is sent: some sites' part later, some twice. Usage isn't of a site: it is late as a whole."""
        seed = self._plant.seed
        waits = held_back(seed, event_type.name, sites, moment)
        again = sent_twice(seed, event_type.name, sites, moment)
        if frame.is_empty() or not (waits.any() or again.any()):
            return [Batch(event_type, frame, encoding)]
        found = []
        for site, wait, twice in zip(sites, waits, again, strict=True):
            part = frame if event_type is TOKENS else frame.filter(pl.col("site") == self._plant.sites[site])
            found += [Batch(event_type, part, encoding, float(wait))] * (1 + twice)
        return found
