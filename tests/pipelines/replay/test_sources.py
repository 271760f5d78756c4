"""Messages of the archive's form are polls like those of a worker's own transport."""

from dags.archive.messages import Messages
from pipelines.replay.sources import polled
from schemas.envelope import CONTENT_TYPE
from streams.polled import Run


def test_a_batch_is_a_poll_with_keys_types_and_arrivals_that_follows_the_one_before() -> None:
    messages = Messages()
    messages.add(7, 1_000, b"k", b"{}", [("other", b"x"), (CONTENT_TYPE, b"application/json")])
    messages.add(9, 1_001, None, None, None)
    run = Run("topic", 3, 5)
    first = polled(run, messages.batch(3))
    assert (first.run, first.expected, first.last) == (run, 5, 9)
    assert (first.values, first.keys) == ([b"{}", None], [b"k", None])
    assert (first.content_types, first.arrived, first.bytes) == ([b"application/json", None], [1_000, 1_001], 2)
    more = Messages()
    more.add(10, 1_002, None, b"[]", [])
    assert polled(run, more.batch(3)).expected == 10
    assert run.position == 11


def test_a_slice_of_a_batch_keeps_its_own_headers() -> None:
    messages = Messages()
    for offset in range(4):
        messages.add(offset, offset, None, b"", [(CONTENT_TYPE, b"t%d" % offset)])
    assert polled(Run("topic", 0, 2), messages.batch(0).slice(2)).content_types == [b"t2", b"t3"]
