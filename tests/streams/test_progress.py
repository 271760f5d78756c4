"""A partition stands still when something waits in it and its position doesn't move, and only then."""

from streams.polled import Run
from streams.progress import Progress


def taken(position: int = 0, now: float = 0.0) -> tuple[Progress, Run]:
    progress = Progress()
    progress.assigned({0}, now)
    run = Run("topic", 0, position)
    progress.reached(0, position, now, run)
    return progress, run


def still(progress: Progress, now: float) -> set[int]:
    return set(progress.standing_still(now, 120))


def test_while_nothing_waits_it_may_rest_for_ever() -> None:
    progress, _ = taken(10)
    for now in range(0, 10_000, 2):
        progress.look({0: 10}, now)
        assert progress.partitions[0].lag == 0
        assert not still(progress, now)


def test_what_comes_after_a_long_rest_waits_from_when_it_came() -> None:
    progress, _ = taken(10)
    progress.look({0: 10}, 1000)
    progress.look({0: 13}, 1002)
    assert progress.partitions[0].lag == 3
    assert progress.partitions[0].still_seconds(1004) == 2
    assert not still(progress, 1120)
    assert "3 offsets wait at 10" in progress.standing_still(1123, 120)[0]


def test_it_is_well_again_when_the_position_moves_though_more_waits() -> None:
    progress, _ = taken(10)
    progress.look({0: 100}, 1)
    assert still(progress, 200) == {0}
    progress.reached(0, 11, 200)
    assert progress.partitions[0].lag == 89
    assert not still(progress, 300)


def test_a_take_at_the_same_position_is_no_progress() -> None:
    """A flush that fails for ever makes its partition be taken again and again."""
    progress, _ = taken(10)
    progress.look({0: 100}, 1)
    for now in range(2, 200, 5):
        progress.reached(0, 10, now, Run("topic", 0, 10))
    assert still(progress, 200) == {0}


def test_the_end_of_a_transaction_does_not_wait() -> None:
    progress, run = taken(10)
    run.position = 12  # two records were read, behind them a marker
    run.fetched = 13
    progress.look({0: 13}, 1)
    assert progress.partitions[0].lag == 3
    progress.reached(0, 12, 2)
    assert progress.partitions[0].lag == 0
    progress.look({0: 13}, 1000)
    assert not still(progress, 1000)


def test_one_that_can_not_be_taken_stands_still_where_its_log_holds_something() -> None:
    progress = Progress()
    progress.assigned({0, 1}, 0)
    for now in (2, 200):
        progress.look({0: 5, 1: 0}, now)
    assert "could not be taken" in progress.standing_still(200, 120)[0]
    assert still(progress, 200) == {0}
    assert progress.positions == {}
    assert progress.partitions[0].lag is None


def test_while_kafka_does_not_tell_what_was_known_stands() -> None:
    progress, _ = taken(10)
    progress.look({0: 10}, 1)
    progress.look({}, 1000)
    assert not still(progress, 1000)
    progress.look({0: 11}, 1001)
    assert not still(progress, 1100)


def test_a_partition_that_is_lost_leaves_and_one_that_stays_goes_on_standing_still() -> None:
    progress = Progress()
    progress.assigned({0, 1}, 0)
    for partition in (0, 1):
        progress.reached(partition, 10, 0, Run("topic", partition, 10))
    progress.halted[1] = "the log expired"
    progress.look({0: 20, 1: 20}, 1)
    progress.revoked()
    assert (progress.partitions, progress.positions, progress.halted) == ({}, {}, {})
    progress.reached(1, 15, 2)  # a flush that ended late
    progress.assigned({0}, 3)
    assert progress.positions == {0: 10}
    assert still(progress, 200) == {0}
    progress.assigned({1}, 201)
    assert progress.positions == {}


def test_a_halted_partition_is_told_as_halted_alone() -> None:
    progress, _ = taken(10)
    progress.halted[0] = "the log expired"
    progress.look({0: 20}, 1)
    assert not still(progress, 1000)
