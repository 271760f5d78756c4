"""Token events for the benchmark: as many as asked for, always the same ones."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pipelines.feed.producer import Producer
from schemas import catalog
from schemas.envelope import Encoding
from schemas.events import TOKENS
from schemas.settings import Settings

CHUNK = 50_000
GATEWAYS = 8
ROWS_PER_MESSAGE: dict[Encoding, int] = {"json": 1, "array": 100, "arrow": 1000}
# Events of ten minutes, so that a flush touches as many minutes as a worker that catches up after a restart.
SPAN = timedelta(minutes=10)


def frames(events: int, *, end: datetime) -> Iterator[pl.DataFrame]:
    """Frames of token events in time order that end at ``end``."""
    random = np.random.default_rng(1)
    names = {
        "region": catalog.regions()["region"],
        "site": catalog.sites()["site"],
        "tenant": catalog.tenants()["tenant"],
        "package": catalog.packages()["package"],
        "model": catalog.gateway_models()["model"][:300],
    }
    providers = catalog.gateway_models()["provider"]
    for start in range(0, events, CHUNK):
        count = min(CHUNK, events - start)
        pick = {name: random.integers(0, len(values), count) for name, values in names.items()}
        age = (events - np.arange(start, start + count)) / events * SPAN.total_seconds()
        gateway = pl.Series(random.integers(0, GATEWAYS, count)).cast(pl.String)
        duration = random.lognormal(0.5, 0.8, count)
        yield pl.DataFrame(
            {
                "time": pl.Series(int(end.timestamp() * 1e9) - (age * 1e9).astype(np.int64)).cast(
                    pl.Datetime("ns", "UTC")
                ),
                "source": "gateway-" + gateway,
                "id": pl.Series(np.arange(start, start + count)).cast(pl.String),
                "gateway": "gateway-" + gateway,
                **{name: names[name][pick[name]] for name in names},
                "provider": providers[pick["model"]],
                "requests": np.ones(count, np.int64),
                "input_tokens": random.integers(1, 8000, count),
                "output_tokens": random.integers(1, 2000, count),
                "duration_seconds": duration,
                "first_token_seconds": duration / 5,
            }
        )


def preload(settings: Settings, encoding: Encoding, events: int) -> None:
    """Put the events into the tokens topic."""
    with Producer(settings, f"bench-{encoding}") as producer:
        for frame in frames(events, end=datetime.now(UTC)):
            producer.send(TOKENS, frame, encoding=encoding, rows_per_message=ROWS_PER_MESSAGE[encoding])
