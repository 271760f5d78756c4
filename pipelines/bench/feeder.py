"""A live producer at a given rate, as a process of its own: `python -m pipelines.bench.feeder LOAD STAGES TO`.

STAGES is JSON: [[events a second, seconds], …]. Events have the time at which they are sent. At the end it writes, as
JSON, when each stage began and ended, how many events the broker took at which ms, and what the tables should say.
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


def feed(sender: Sender, load: Load, stages: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Send at these rates; (begin, end) of each stage, Unix s."""
    random = np.random.default_rng(2)
    spans: list[tuple[float, float]] = []
    begin = time.time()
    for rate, seconds in stages:
        tick = min(max(load.keys * load.rows_per_message / rate, TICKS[0]), TICKS[1])
        sent, end = 0, begin + seconds
        while (now := time.time()) < end:
            due = int((now - begin) * rate) - sent
            if due:
                times = np.full(due, int(now * 1e9)) + np.arange(due)
                sender.send(load.frame(random, sender.sent, times))
                sent += due
            time.sleep(max(0.0, min(now + tick, end) - time.time()))
        spans.append((begin, end))
        begin = end
    return spans


def main() -> None:
    """Run the stages and write what came of them."""
    name, stages, to = sys.argv[1:]
    with Sender(load_settings(), LOADS[name]) as sender:
        spans = feed(sender, LOADS[name], json.loads(stages))
    told = {"stages": spans, "arrivals": sorted(sender.arrivals.items()), "totals": sender.totals}
    Path(to).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
