"""What a run of faults is judged by."""

from pipelines.chaos.report import Report, Round


def test_a_difference_alone_is_no_success() -> None:
    assert Report(1, events=10, rounds=[Round("worker killed", "worker", 1.0, 2.0)]).holds
    assert not Report(1, events=10, differences=["the ledger's ranges overlap"]).holds
    assert not Report(1, events=10, twice=1).holds


def test_the_workers_median_is_over_workers_alone() -> None:
    rounds = [Round("x", part, 1.0, seconds) for part, seconds in (("worker", 2.0), ("worker-2", 4.0), ("kafka", 90.0))]
    assert Report(1, rounds=rounds).worker_p50_s == 3.0
    assert Report(1).worker_p50_s is None
