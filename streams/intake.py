"""Bytes to a typed frame and rejects: what a poll brought, decoded in batches."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import polars as pl

from schemas.envelope import encoding_of
from schemas.events import EventType
from schemas.identity import with_identity
from streams.arrow_intake import batch_events, rows_as_json
from streams.json_intake import array_events, single_events
from streams.polled import Polled
from streams.rejects import UNDECODABLE, UNPARSABLE, Rejects, as_json, elements


@dataclass(frozen=True)
class Intake:
    """What a poll held: ``frame`` has the event type's columns and offset, place (Int64, UInt32), arrived (ms UTC)."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    messages: int

    @property
    def events(self) -> int:
        """Events found: accepted or not."""
        return self.frame.height + self.rejects.height


def decode(event_type: EventType, polled: Polled) -> Intake:
    """Every event of every message is either a row of the frame or a reject, in the order of (offset, place).

    What a message becomes depends on it alone, not on the others of the poll. Never raises: a poll that makes the
    decoder raise is halved until the message is found that does, which becomes a dead letter.
    """
    return _halved(_decode, event_type, polled)


def keyed(event_type: EventType, polled: Polled) -> Intake:
    """The same, each event with its identity, and text (but ids) as categories: what a flush groups and compares by.

    A row is 16 bytes a text column lighter for it while it waits, and two decode beside each other where one flushes.
    """
    return _halved(_keyed, event_type, polled)


def _halved(read: Callable[[EventType, Polled], Intake], event_type: EventType, polled: Polled) -> Intake:
    try:
        return read(event_type, polled)
    except (Exception, pl.exceptions.PanicException) as error:
        count = len(polled.values)
        if count == 1:
            rejects = Rejects(polled)
            rejects.whole(0, UNDECODABLE, repr(error))
            empty = read(event_type, _part(polled, slice(0))).frame
            return Intake(empty, rejects.frame(), 1)
        parts = (slice(count // 2), slice(count // 2, count))
        halves = [_halved(read, event_type, _part(polled, part)) for part in parts]
        return Intake(
            pl.concat(half.frame for half in halves),
            pl.concat(half.rejects for half in halves),
            sum(half.messages for half in halves),
        )


def _keyed(event_type: EventType, polled: Polled) -> Intake:
    intake = _decode(event_type, polled)
    categories = [
        pl.col(f.column).cast(pl.Categorical) for f in event_type.fields if f.kind == "text" and f.column != "id"
    ]
    return replace(intake, frame=with_identity(event_type, intake.frame).with_columns(categories))


def _part(polled: Polled, part: slice) -> Polled:
    return replace(
        polled,
        values=polled.values[part],
        keys=polled.keys[part],
        content_types=polled.content_types[part],
        offsets=polled.offsets[part],
        arrived=polled.arrived[part],
    )


def _decode(event_type: EventType, polled: Polled) -> Intake:
    groups: dict[str, list[int]] = {"json": [], "array": [], "arrow": []}
    rejects = Rejects(polled)
    for index, (value, content_type) in enumerate(zip(polled.values, polled.content_types, strict=True)):
        encoding = encoding_of(value, content_type) if value else None
        if encoding is None:
            what = "the message is empty" if not value else f"content-type {content_type!r} says nothing we know"
            rejects.whole(index, UNPARSABLE, what)
        else:
            groups[encoding].append(index)
    frames: list[pl.DataFrame] = []
    if groups["json"]:
        frames.extend(single_events(event_type, polled, groups["json"], rejects))
    if groups["array"]:
        frames.extend(array_events(event_type, polled, groups["array"], rejects))
    if groups["arrow"]:
        frames.extend(batch_events(event_type, polled, groups["arrow"], rejects))
    frame = _positioned(event_type, frames, polled)
    frame = _without_impossible(event_type, frame, polled, rejects)
    if len(frames) > 1:
        frame = frame.sort("offset", "place", maintain_order=True)
    return Intake(frame.drop("message"), rejects.frame(), len(polled.values))


def _positioned(event_type: EventType, frames: list[pl.DataFrame], polled: Polled) -> pl.DataFrame:
    """The frames as one, with each row's position and arrival; absent text is empty, an absent count its default."""
    schema = pl.Schema({**event_type.frame_schema, "message": pl.UInt32(), "place": pl.UInt32()})
    frame = pl.concat(frames) if frames else schema.to_frame()
    filled = [
        pl.col(f.column).fill_null("" if f.kind == "text" else f.default)
        for f in event_type.fields
        if f.kind == "text" or f.default is not None
    ]
    messages = pl.DataFrame(
        {
            "offset": pl.Series(polled.offsets, dtype=pl.Int64),
            "arrived": pl.Series(polled.arrived, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
        }
    )
    return frame.with_columns(filled).hstack(messages[frame.get_column("message")])


def _without_impossible(event_type: EventType, frame: pl.DataFrame, polled: Polled, rejects: Rejects) -> pl.DataFrame:
    rules = event_type.impossible
    bad = frame.select(pl.any_horizontal(rule.fill_null(value=False) for _, rule in rules).alias("bad")).to_series()
    if not bad.any():
        return frame
    first = pl.coalesce(pl.when(rule.fill_null(value=False)).then(pl.lit(reason)) for reason, rule in rules)
    broken = frame.filter(bad).with_columns(reason=first)
    for (index,), rows in broken.group_by("message", maintain_order=True):
        places = rows.get_column("place").to_list()
        payloads = _payloads(polled, int(str(index)), places)
        for row, payload in zip(rows.iter_rows(named=True), payloads, strict=True):
            detail = json.dumps({c: row[c] for c in event_type.columns if row[c] is not None}, default=str)
            rejects.add(row["message"], row["place"], row["reason"], detail, payload)
    return frame.filter(~bad)


def _payloads(polled: Polled, message: int, places: list[int]) -> list[bytes]:
    """The events' own bytes: of a single event its message, of an array or Arrow batch each element, as JSON."""
    value = polled.values[message] or b""
    encoding = encoding_of(value, polled.content_types[message])
    if encoding == "arrow":
        return rows_as_json(value, places)
    if encoding == "array":
        try:
            events = elements(value)
        except ValueError:  # nested so deep that only pyarrow reads it
            return [value, *[b""] * (len(places) - 1)]  # megabytes, once and not for each event in them
        return [as_json(events[place]) for place in places]
    return [value] * len(places)
