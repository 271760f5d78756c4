"""The simulated network's past: telemetry and usage in coarse steps, as fast as it can be sent."""

from collections.abc import Iterator

import numpy as np

from pipelines.feed.demand import Demand
from pipelines.feed.faults import meter_faults, silent
from pipelines.feed.live import Batch
from pipelines.feed.plant import Plant
from schemas.events import LINKS, PACKAGES, POWER, TOKENS, UTILIZATION

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
_MINUTE = 60 * SECOND

FINE_USAGE = 6 * 3600 * SECOND
"""So much of the newest past has its usage by the minute: a rate by the minute would show steps as spikes and gaps."""

_FINE_DAYS = 45
"""Up to so many days a step is a quarter of an hour, else an hour: 35 days are 3,360 steps."""


def step_seconds(days: float) -> int:
    """The resolution of a history of so many days."""
    return 900 if days <= _FINE_DAYS else 3600


def history(
    plant: Plant, demand: Demand, begin: int, end: int, step: int, fine: int | None = None
) -> Iterator[tuple[int, list[Batch]]]:
    """(Unix ns up to which the past is complete, batches) a day at a time over [begin, end) ns; ``step`` in s.

    Samples lie on multiples of the step. Usage is told of each step, from ``fine`` ns on minute by minute; a first or
    last step may be shorter.
    """
    stride = step * SECOND
    while begin < end:
        until = min((begin // DAY + 1) * DAY, end)
        grid = np.arange(-(-begin // stride) * stride, until, stride, dtype=np.int64)
        # Whole minutes: the usage of a minute that straddles two would be a spike in one of them.
        first = -(-max(begin, until if fine is None else fine) // _MINUTE) * _MINUTE
        minutes = np.arange(first, until, _MINUTE, dtype=np.int64)
        edges = np.unique(np.concatenate([[begin], grid, minutes, [until]])).astype(np.int64)
        batches = [
            Batch(PACKAGES, demand.ledger(begin, until), "json"),
            Batch(TOKENS, demand.history(edges[:-1], edges[1:]), "arrow"),
        ]
        if len(grid):
            due = ~silent(plant, grid)
            made, watts = meter_faults(plant, grid, due[:, plant.site_of_meter])
            batches += [
                Batch(POWER, plant.power(grid, made, watts), "arrow"),
                Batch(UTILIZATION, plant.utilization(grid, due[:, plant.site_of_pod]), "arrow"),
                Batch(LINKS, plant.link_samples(grid, due[:, plant.site_of_link], step), "arrow"),
            ]
        yield until, [batch for batch in batches if batch.frame.height]
        begin = until
