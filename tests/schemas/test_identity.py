"""An event's identity is the same hash in every process, release and language."""

from datetime import UTC, datetime

import polars as pl
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import complete
from schemas.events import EVENT_TYPES, POWER, TOKENS, EventType
from schemas.identity import checksum, with_identity

text = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]), max_size=8)
nanoseconds = st.integers(-(2**62), 2**62)


def value(event_type: EventType, column: str) -> st.SearchStrategy:
    return nanoseconds if event_type.columns[column].kind == "time" else text


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_it_is_xxh3_128_of_the_parts_joined(event_type: EventType, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*(value(event_type, c) for c in event_type.identity)), min_size=1, max_size=5))
    columns = {
        column: pl.Series([row[i] for row in rows]).cast(event_type.columns[column].polars)
        for i, column in enumerate(event_type.identity)
    }
    found = with_identity(event_type, pl.DataFrame(columns)).select("identity_hi", "identity_lo").rows()
    for row, (high, low) in zip(rows, found, strict=True):
        digest = xxhash.xxh3_128_intdigest("\x1f".join(str(part) for part in row).encode())
        assert (high << 64) | low == digest


def test_it_never_changes() -> None:
    """Written down once: another value here would make every stored event new."""
    time = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    power = complete(POWER, pl.DataFrame({"time": [time], "site": ["西安"], "meter": ["rack/7"], "watts": [1.0]}))
    tokens = complete(TOKENS, pl.DataFrame({"source": ["gateway-1"], "id": ["r-42"]}))
    digests = {
        event_type.name: [f"{hi:016x}{lo:016x}" for hi, lo in frame.select("identity_hi", "identity_lo").iter_rows()]
        for event_type, frame in ((POWER, with_identity(POWER, power)), (TOKENS, with_identity(TOKENS, tokens)))
    }
    assert digests == {"power": ["ff7ff8753ac4bfcb01f64fd5a5d5a1e5"], "tokens": ["d55060a77e4f948d24205f70f0b3bb60"]}


def test_categories_hash_as_the_text_they_stand_for() -> None:
    frame = complete(TOKENS, pl.DataFrame({"source": ["b", "a", "b"], "id": ["1", "2", "3"]}))
    plain = with_identity(TOKENS, frame).select("identity_hi", "identity_lo")
    categories = with_identity(TOKENS, frame.with_columns(pl.col("source").cast(pl.Categorical)))
    assert categories.select("identity_hi", "identity_lo").equals(plain)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.randoms())
def test_a_checksum_is_the_same_in_any_order_and_any_split(values: list[int], random) -> None:
    def of(part: list[int]) -> int:
        return checksum(pl.DataFrame({"identity_lo": pl.Series(part, dtype=pl.UInt64)}))

    shuffled = list(values)
    random.shuffle(shuffled)
    cut = len(values) // 2
    assert of(values) == of(shuffled) == (of(values[:cut]) + of(values[cut:])) % 2**64 == sum(values) % 2**64
