from datetime import UTC, datetime, timedelta

import pytest
from clickhouse_connect.driver.client import Client

from dashboards import sql
from dashboards.board.macros import Scope, expand
from dashboards.board.timerange import TimeRange

STOP = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize("interval", [60, 600, 3600, 7200, 86_400, 172_800])
@pytest.mark.parametrize("days", [0.25, 2, 2.1, 21, 21.1, 365])
def test_the_board_knows_the_buckets_that_its_queries_make(client: Client, days: float, interval: int) -> None:
    scope = Scope(TimeRange(STOP - timedelta(days=days), STOP), interval)
    made = int(client.command("SELECT " + expand(sql.SECONDS, scope)))
    assert made == sql.bucket_seconds(scope.span.seconds, interval)
    assert made >= (86_400 if days > 21 else 3600 if days > 2 else interval)


@pytest.mark.parametrize(("days", "hours"), [(0.25, 6), (1, 24), (2, 48), (30, 720)])
def test_sums_until_now_are_of_a_range_as_long_as_the_one_asked_for(client: Client, days: float, hours: int) -> None:
    stop = STOP + timedelta(minutes=40)
    scope = Scope(TimeRange(stop - timedelta(days=days), stop), 60)
    assert int(client.command("SELECT " + expand(sql.SECONDS_OF_STEPS, scope))) == hours * 3600
