"""From arrivals in the broker and looks at the table to the age at which events could be queried. Pure."""

from collections.abc import Sequence

import numpy as np

Arrivals = Sequence[tuple[int, int]]
"""(ms since 1970, events that the broker took then), in order."""

Looks = Sequence[tuple[float, int]]
"""(Unix s, events that could be queried then), in order."""


def freshness(arrivals: Arrivals, looks: Looks, begin: float, end: float) -> tuple[float, float]:
    """p50 and p99 of the seconds from arrival to visibility, of the events that arrived between two times (Unix s).

    Events become visible in the order of their arrival: a flush takes all that each partition has. So the n-th to
    arrive is visible at the first look that finds n events: too late by the time between two looks, at most.

    :raises ValueError: where none arrived then, or some are not visible at the last look.
    """
    at = np.array([ms / 1000 for ms, _ in arrivals])
    events = np.array([count for _, count in arrivals])
    seen_at, seen = np.array([time for time, _ in looks]), np.array([count for _, count in looks])
    first = np.searchsorted(seen, np.cumsum(events))
    inside = (at >= begin) & (at < end)
    if not inside.any():
        raise ValueError("no event arrived in that time")
    if (first[inside] == len(seen)).any():
        raise ValueError("events that arrived in that time were never visible")
    age = seen_at[first[inside]] - at[inside]
    order = np.argsort(age)
    below = np.cumsum(events[inside][order])
    p50, p99 = (float(age[order][np.searchsorted(below, share * below[-1])]) for share in (0.5, 0.99))
    return p50, p99
