"""What a worker says of itself: the metrics that an operator looks for, and a page that is red for a reason."""

from prometheus_client.parser import text_string_to_metric_families

from streams.health import health, metrics
from streams.polled import Run
from streams.progress import Progress


def progress_of(now: float = 0.0) -> Progress:
    progress = Progress(rejects=4, differences=2, mended=1)
    progress.assigned({0, 1, 2}, now)
    progress.reached(0, 10, now, Run("t", 0, 10))
    progress.reached(1, 10, now, Run("t", 1, 10))
    progress.look({0: 17, 1: 10, 2: 3}, now + 1)
    return progress


def read(progress: Progress, now: float) -> dict[str, dict[str, float]]:
    """By metric: by partition, or by topic where it has none."""
    return {
        sample.name: {sample.labels.get("partition", sample.labels["topic"]): sample.value}
        | {s.labels.get("partition", s.labels["topic"]): s.value for s in family.samples if s.name == sample.name}
        for family in text_string_to_metric_families(metrics({"t": progress}, now).decode())
        for sample in family.samples
    }


def test_lag_age_differences_and_dead_letters_are_metrics() -> None:
    found = read(progress_of(), 31)
    assert found["wattstream_lag_records"] == {"0": 7, "1": 0}
    assert found["wattstream_position"] == {"0": 10, "1": 10}
    assert found["wattstream_position_age_seconds"] == {"0": 30, "1": 0, "2": 30}
    assert found["wattstream_deadletters_total"] == {"t": 4}
    assert found["wattstream_audit_differences_total"] == {"t": 2}
    assert found["wattstream_audit_mended_total"] == {"t": 1}
    assert found["wattstream_halted"] == {"0": 0, "1": 0, "2": 0}


def test_a_partition_that_was_lost_has_no_metrics() -> None:
    progress = progress_of()
    progress.revoked()
    progress.assigned({1}, 2)
    found = read(progress, 31)
    assert set(found["wattstream_position"]) == set(found["wattstream_lag_records"]) == {"1"}
    assert set(found["wattstream_position_age_seconds"]) == {"1"}


def test_health_is_green_until_the_limit_and_then_names_the_partitions_that_stand_still() -> None:
    progress = progress_of()
    status, document = health({"t": progress}, 121, 120)
    assert (status, document["halted"], document["standing_still"]) == (200, {}, {})
    assert document["partitions"]["t/0"] == {"position": 10, "lag": 7, "still_seconds": 120}
    status, document = health({"t": progress}, 122, 120)
    assert (status, set(document["standing_still"])) == (503, {"t/0", "t/2"})
    assert "7 offsets wait at 10" in document["standing_still"]["t/0"]
    progress.reached(0, 17, 122)
    progress.reached(2, 3, 122)
    assert health({"t": progress}, 1000, 120)[0] == 200


def test_health_is_red_for_a_halted_partition_at_once() -> None:
    progress = progress_of()
    progress.halted[2] = "the log expired"
    status, document = health({"t": progress}, 1, 120)
    assert (status, document["halted"]) == (503, {"t/2": "the log expired"})
