"""What can't be used of a poll, and why: one row each, with its bytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import polars as pl

from streams.polled import Polled

UNPARSABLE = "cannot be parsed"
UNKNOWN_TYPE = "is of unknown type"
WRONG_TYPE = "has a field of the wrong type"
TOO_LARGE = "is too large when unpacked"
UNDECODABLE = "made the decoder raise"

SCHEMA = pl.Schema(
    {
        "offset": pl.Int64(),
        "place": pl.UInt32(),
        "arrived": pl.Datetime("ms", "UTC"),
        "reason": pl.String(),
        "detail": pl.String(),
        "content_type": pl.String(),
        "key": pl.Binary(),
        "payload": pl.Binary(),
    }
)
_DETAIL_CHARACTERS = 500
# Each broken event of a message carries them: a key of 100 kB beside 100,000 broken events would be 10 GB.
_KEY_BYTES, _CONTENT_TYPE_BYTES = 1024, 256


@dataclass
class Rejects:
    """Collects the rejects of one poll; ``message`` counts the messages of the poll from 0."""

    polled: Polled
    _rows: list[tuple[int, int, str, str, bytes]] = field(default_factory=list)

    def add(self, message: int, place: int, reason: str, detail: str, payload: bytes) -> None:
        """One event, or a whole message at place 0."""
        self._rows.append((message, place, reason, detail[:_DETAIL_CHARACTERS], payload))

    def whole(self, message: int, reason: str, detail: str) -> None:
        """A message of which no event can be told apart."""
        self.add(message, 0, reason, detail, self.polled.values[message] or b"")

    def frame(self) -> pl.DataFrame:
        """The rows of ``SCHEMA``, in the order of (offset, place)."""
        polled = self.polled
        return pl.DataFrame(
            {
                "offset": [polled.offsets[message] for message, *_ in self._rows],
                "place": [place for _, place, *_ in self._rows],
                "arrived": pl.Series([polled.arrived[message] for message, *_ in self._rows], dtype=pl.Int64),
                "reason": [row[2] for row in self._rows],
                "detail": [row[3] for row in self._rows],
                "content_type": [
                    (polled.content_types[message] or b"")[:_CONTENT_TYPE_BYTES].decode(errors="replace")
                    for message, *_ in self._rows
                ],
                "key": [(polled.keys[message] or b"")[:_KEY_BYTES] for message, *_ in self._rows],
                "payload": [row[4] for row in self._rows],
            },
            schema=SCHEMA,
            strict=False,
        ).sort("offset", "place")


def as_json(event: Any) -> bytes:
    """An event of a batch as bytes of its own; NaN and lone surrogates are kept."""
    try:
        return json.dumps(event, default=str, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(event, default=str).encode()


def elements(value: bytes) -> Sequence[Any]:
    """The elements of a JSON array.

    Python's own reader takes what orjson refuses whole for the sake of one element: NaN, lone surrogates, huge numbers.

    :raises ValueError: where it is none.
    """
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        try:
            found = json.loads(value.decode())
        except (ValueError, RecursionError):
            raise error from None
    if not isinstance(found, list):
        raise ValueError("is no JSON array")
    return cast("list[Any]", found)
