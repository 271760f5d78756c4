"""A live producer at a given rate, as a process of its own: `python -m pipelines.bench.feeder LOAD STAGES FIRST TO`.

STAGES is JSON: [[events a second, seconds], …]. Events have the time at which they are sent. At the end it writes, as
JSON, when each stage began and ended, how many events it sent (numbered from FIRST on), how many the broker took at
which ms, and what the tables should say.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from pipelines.bench.load import LOADS, Load
from pipelines.bench.sending import Sender
from schemas.settings import load as load_settings

TICKS = (0.02, 0.25)
"""s between two sendings: as many as fill a message of each key, within these."""


def feed(sender: Sender, load: Load, stages: list[tuple[float, float]], first: int) -> list[tuple[float, float]]:
    """Send at these rates; (begin, end) of each stage, Unix s."""
    random = np.random.default_rng(first)
    spans: list[tuple[float, float]] = []
    load.frame(random, 0, np.zeros(1, np.int64))  # reads the catalogue
    begin = time.time()
    for rate, seconds in stages:
        tick = min(max(load.keys * load.rows_per_message / rate, TICKS[0]), TICKS[1])
        sent, end = 0, begin + seconds
        while (now := time.time()) < end:
            due = int((now - begin) * rate) - sent
            if due:
                times = np.full(due, int(now * 1e9)) + np.arange(due)
                sender.send(load.frame(random, first + sender.sent, times))
                sent += due
            time.sleep(max(0.0, min(now + tick, end) - time.time()))
        spans.append((begin, end))
        begin = end
    return spans


def main() -> None:
    """Run the stages and write what came of them."""
    name, stages, first, to = sys.argv[1:]
    with Sender(load_settings(), LOADS[name]) as sender:
        spans = feed(sender, LOADS[name], json.loads(stages), int(first))
    told = {"stages": spans, "sent": sender.sent, "totals": sender.totals, "arrivals": sorted(sender.arrivals.items())}
    Path(to).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
