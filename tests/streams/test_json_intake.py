"""Events in JSON, one a message or an array of them: what is broken, too deep or too much takes no neighbour."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from schemas.envelope import CONTENT_TYPES
from schemas.events import TOKENS
from streams import intake, json_intake
from streams.intake import decode
from streams.rejects import TOO_LARGE, UNKNOWN_TYPE, UNPARSABLE, WRONG_TYPE
from tests.streams.messages import Poll, event, quick, raw, single


@quick
@given(st.lists(single, min_size=1, max_size=8))
def test_the_fast_and_the_slow_way_read_the_same(poll: Poll, values: list[bytes]) -> None:
    """One broken neighbour sends all of a piece down the slow way."""
    fast = decode(TOKENS, poll(TOKENS, values))
    slow = decode(TOKENS, poll(TOKENS, [*values, b"{broken}"]))
    assert_frame_equal(fast.frame, slow.frame)
    assert slow.rejects.height == fast.rejects.height + 1


BROKEN: list[tuple[str, bytes]] = [
    (UNPARSABLE, b"no json at all"),
    (UNPARSABLE, b'{"half": '),
    (UNPARSABLE, event().replace(b'"gw"', b'"\xff"')),
    (UNKNOWN_TYPE, event().replace(b"tokens.v1", b"tokens.v9")),
    (UNKNOWN_TYPE, event().replace(b'"1.0"', b'"0.3"')),
    (WRONG_TYPE, event(requests="two")),
    (WRONG_TYPE, event(requests=1.5)),
    ("gateway is missing", event(gateway="")),
    ("requests is below 1", event(requests=-1)),
    ("duration is not a finite number", raw("duration", "NaN").replace(b'"duration": 0.25', b'"x": 1')),
    ("gen_ai.usage.cache_read.input_tokens exceeds", event(**{"gen_ai.usage.cache_read.input_tokens": 8})),
    ("time is more than 300 s ahead", event().replace(b"2025-12-31T23:59", b"2026-01-01T00:06")),
    (WRONG_TYPE, event().replace(b"2025-12-31T23:59:00.5Z", b"yesterday")),
]


@pytest.mark.parametrize(
    ("reason", "broken"), BROKEN, ids=[reason[:20] + str(i) for i, (reason, _) in enumerate(BROKEN)]
)
def test_a_broken_event_is_a_dead_letter_with_its_bytes_and_takes_no_neighbour(
    poll: Poll, reason: str, broken: bytes
) -> None:
    good = [event(requests=i) for i in range(1, 301)]
    found = decode(TOKENS, poll(TOKENS, [*good[:150], broken, *good[150:]]))
    assert found.frame["requests"].to_list() == list(range(1, 301))
    (reject,) = found.rejects.rows(named=True)
    assert reject["reason"].startswith(reason)
    assert (reject["offset"], reject["place"], reject["payload"], reject["key"]) == (150, 0, broken, b"key")
    assert reject["detail"]


def test_an_array_loses_only_its_broken_elements(poll: Poll) -> None:
    elements = [
        event(requests=1),
        b"null",
        raw("x", "NaN"),
        raw("id", '"\\ud800"'),
        event(requests=-1),
        event(requests=2),
    ]
    found = decode(TOKENS, poll(TOKENS, [b"[" + b",".join(elements) + b"]"]))
    assert found.frame["place"].to_list() == [0, 2, 3, 5]
    assert found.rejects["place"].to_list() == [1, 4]
    assert json.loads(found.rejects["payload"][1])["data"]["requests"] == -1


@pytest.mark.parametrize(
    "values",
    [(b'[{"id":"', b'"}]'), (b'[]}{"b":[]', b"[]"), (b"[", b"]"), (b"[]}", b'{"b":[]'), (b'[]}{"b":[]', b'[{"x":"')],
)
def test_arrays_that_only_together_are_json_are_dead_letters_each(poll: Poll, values: tuple[bytes, bytes]) -> None:
    array_type = CONTENT_TYPES["array"]
    together = poll(TOKENS, [*values, b"[" + event() + b"]"], content_types=[array_type] * 3)
    found = decode(TOKENS, together)
    alone = [decode(TOKENS, intake._part(together, slice(i, i + 1))) for i in range(3)]
    assert_frame_equal(found.rejects, pl.concat(a.rejects for a in alone))
    assert found.frame["offset"].to_list() == [2]


def test_an_impossible_number_in_an_array_that_orjson_refuses_is_still_a_dead_letter(poll: Poll) -> None:
    element = event().replace(b'"duration": 0.25', b'"duration": NaN')
    found = decode(TOKENS, poll(TOKENS, [b"[" + element + b"," + event() + b"]"]))
    assert found.frame["place"].to_list() == [1]
    assert found.rejects["reason"].to_list() == ["duration is not a finite number"]
    assert b'"duration": NaN' in found.rejects["payload"][0]


@pytest.mark.parametrize(
    "nested", ["[" * 200_000 + "]" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000], ids=["[", "{"]
)
def test_nesting_too_deep_for_one_parser_is_read_or_refused_but_never_fatal(poll: Poll, nested: str) -> None:
    deep = raw("x", nested)
    values = [deep, b"[" + deep + b"]", b"[" + deep + b",5]", nested.encode(), event()]
    found = decode(TOKENS, poll(TOKENS, values))
    assert 4 in found.frame["offset"].to_list()
    assert found.events == 5


def test_an_array_of_more_than_any_array_of_events_holds_is_refused_whole(poll: Poll) -> None:
    value = b"[" + b"0," * json_intake.MAX_EVENTS + b"0]"
    found = decode(TOKENS, poll(TOKENS, [value], content_types=[CONTENT_TYPES["array"]]))
    assert found.rejects.select("reason", "payload").rows() == [(TOO_LARGE, value)]


def test_a_long_key_is_not_kept_for_each_of_many_broken_events(poll: Poll) -> None:
    polled = poll(TOKENS, [b"[0,0]"], content_types=[CONTENT_TYPES["array"]])
    polled.keys[0] = b"k" * 100_000
    assert [len(key) for key in decode(TOKENS, polled).rejects["key"]] == [1024] * 2


BLOCK_OF_NULLS = """
import sys
sys.path.insert(0, sys.argv[1])
from streams.intake import decode
from streams.polled import Polled, Run
from schemas.events import POWER
value = b"{}" + b" " * (4 << 20) + b"\\n" + b"null\\n" * 900_000 + b"{}"
found = decode(POWER, Polled(Run(POWER.topic, 0, 0), 0, [value, b"{}"], [None] * 2, [None] * 2, [0, 1], [0, 0]))
print(found.rejects["offset"].to_list())
"""


def test_a_block_of_nothing_but_null_does_not_kill_the_process() -> None:
    """It does where pyarrow's reader is let cut such a text into blocks."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_OF_NULLS, os.getcwd()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[0, 1]"), done.stderr[-2000:]
