"""Whatever a topic holds, each event becomes a row or a dead letter, and which depends on its message alone."""

from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, complete, encode
from schemas.events import EVENT_TYPES, POWER, TOKENS, UTILIZATION, EventType
from streams import intake
from streams.intake import Intake, decode, keyed
from streams.polled import Polled
from streams.rejects import UNDECODABLE
from tests.streams.messages import Poll, batch, event, quick, sample, single

array = st.lists(single, max_size=5).map(lambda values: b"[" + b",".join(values) + b"]")
batches = st.one_of(
    st.lists(st.integers(-2, 3), max_size=5).map(batch),
    st.lists(st.sampled_from([1.0, 1.5, float("nan"), None, 2.0**70]), max_size=5).map(
        lambda v: batch(v, pa.float64())
    ),
    st.lists(st.text(max_size=2), max_size=3).map(lambda v: batch(v, pa.string())),
)
messages = st.one_of(single, array, batches, st.none(), st.binary(max_size=30))


def assert_whole(found: Intake, polled: Polled) -> None:
    assert found.messages == len(polled.values)
    assert found.events == found.frame.height + found.rejects.height
    assert found.frame.columns[-2:] == ["offset", "arrived"] or {"offset", "place", "arrived"} <= set(
        found.frame.columns
    )
    for frame in (found.frame, found.rejects):
        assert frame.select("offset", "place").rows() == sorted(frame.select("offset", "place").rows())
    both = pl.concat([found.frame.select("offset", "place"), found.rejects.select("offset", "place")])
    assert both.is_unique().all()
    places = both.group_by("offset").agg(pl.col("place").sort()).rows()
    assert all(place == list(range(len(place))) for _, place in places), "each event of a message is there once"


@quick
@given(st.lists(messages, min_size=1, max_size=12), st.data())
def test_what_becomes_of_a_message_depends_on_it_alone(
    poll: Poll, values: list[bytes | None], data: st.DataObject
) -> None:
    declared = [data.draw(st.sampled_from([None, None, *CONTENT_TYPES.values(), b"text/plain"])) for _ in values]
    together = poll(TOKENS, values, content_types=declared)
    found = decode(TOKENS, together)
    assert_whole(found, together)
    assert not found.rejects["reason"].is_in([UNDECODABLE]).any()
    alone = [decode(TOKENS, intake._part(together, slice(i, i + 1))) for i in range(len(values))]
    assert_frame_equal(found.frame, pl.concat(a.frame for a in alone))
    assert_frame_equal(found.rejects, pl.concat(a.rejects for a in alone))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.name)
def test_what_was_encoded_comes_back(poll: Poll, event_type: EventType, encoding: Encoding) -> None:
    frame = sample(event_type, 200)
    found = decode(event_type, poll(event_type, encode(event_type, frame, encoding)))
    assert found.rejects.is_empty()
    assert_frame_equal(found.frame.select(frame.columns), frame)


@pytest.mark.parametrize(
    ("event_type", "values"),
    [
        (TOKENS, {"requests": 10**12, "duration_seconds": 1e7}),
        (TOKENS, {"requests": 10**12, "first_token_seconds": 1e7}),
        (UTILIZATION, {"devices": 10**6, "memory_used_bytes": 10**15}),
        (UTILIZATION, {"devices": 10**6, "memory_limit_bytes": 10**15}),
    ],
)
def test_a_count_times_what_each_has_beyond_what_sums_can_hold_is_refused(
    poll: Poll, event_type: EventType, values: dict[str, float]
) -> None:
    first = pl.int_range(pl.len()) == 0
    frame = sample(event_type, 2).with_columns(
        pl.when(first).then(pl.lit(value)).otherwise(name).cast(event_type.columns[name].polars).alias(name)
        for name, value in values.items()
    )
    found = decode(event_type, poll(event_type, encode(event_type, frame, "json")))
    assert found.rejects["offset"].to_list() == [0]
    assert "is above" in found.rejects["reason"][0]


def test_an_event_from_before_1970_is_a_dead_letter(poll: Poll) -> None:
    when = [datetime(1969, 12, 31, 23, 59, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
    frame = pl.DataFrame({"time": when, "site": "s", "meter": "m", "role": "it", "watts": 1.0})
    for encoding in ENCODINGS:
        found = decode(POWER, poll(POWER, encode(POWER, complete(POWER, frame), encoding)))
        assert found.frame.height == 1
        assert found.rejects.get_column("reason").to_list() == ["time is before 1970"]


def test_a_thousand_refused_rows_of_one_batch_do_not_read_it_a_thousand_times(poll: Poll) -> None:
    """Quadratic, these took minutes."""
    rows = 20_000
    value = b"[" + b",".join([event(requests=-1)] * rows) + b"]"
    found = decode(TOKENS, poll(TOKENS, [value, batch([-1] * rows)]))
    assert found.rejects.height == 2 * rows


# Poison --------------------------------------------------------------------------------------------------------------


WAYS: dict[Encoding, str] = {"json": "single_events", "array": "array_events", "arrow": "batch_events"}


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        MemoryError("too much"),
        pa.ArrowMemoryError("too much"),
        RecursionError(),
        OverflowError(),
        pl.exceptions.PanicException("native"),
        pl.exceptions.ComputeError("cannot"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_message_that_makes_the_decoder_raise_is_a_dead_letter(
    poll: Poll, monkeypatch: pytest.MonkeyPatch, encoding: Encoding, error: BaseException
) -> None:
    """Wherever that is: where its encoding is read, or where its events get their identities."""
    read, values = getattr(intake, WAYS[encoding]), encode(TOKENS, sample(TOKENS, 30), encoding)
    good = values if encoding == "json" else values * 30
    poison = values[0] + b" "

    def brittle(event_type: EventType, polled: Polled, indices: list[int], rejects: object) -> object:
        if any(polled.values[index] == poison for index in indices):
            raise error
        return read(event_type, polled, indices, rejects)

    monkeypatch.setattr(intake, WAYS[encoding], brittle)
    polled = poll(TOKENS, [*good[:11], poison, *good[11:]], content_types=[CONTENT_TYPES[encoding]] * 31)
    found = keyed(TOKENS, polled)
    assert_whole(found, polled)
    assert found.frame["offset"].unique().to_list() == [*range(11), *range(12, 31)]
    ((reason, offset, payload),) = found.rejects.select("reason", "offset", "payload").rows()
    assert (reason, offset, payload) == (UNDECODABLE, 11, poison)


@pytest.mark.parametrize("error", [ValueError("a bug"), pl.exceptions.PanicException("native")], ids=repr)
def test_a_message_whose_events_can_be_given_no_identity_is_a_dead_letter(
    poll: Poll, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    identify = intake.with_identity

    def brittle(event_type: EventType, frame: pl.DataFrame) -> pl.DataFrame:
        if frame["requests"].is_in([13]).any():
            raise error
        return identify(event_type, frame)

    monkeypatch.setattr(intake, "with_identity", brittle)
    polled = poll(TOKENS, [event(requests=i) for i in range(1, 30)])
    found = keyed(TOKENS, polled)
    assert_whole(found, polled)
    assert 13 not in found.frame["requests"].to_list()
    assert found.rejects.select("reason", "offset", "payload").rows() == [(UNDECODABLE, 12, event(requests=13))]
    assert {"identity_hi", "identity_lo"} <= set(found.frame.columns)
