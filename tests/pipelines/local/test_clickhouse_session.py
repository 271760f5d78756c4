from typing import Any, cast

import pytest

from pipelines.local.clickhouse_errors import ClickHouseError
from pipelines.local.clickhouse_session import Sessions

CONNECTION = cast("Any", "a connection")


def test_a_user_has_a_thousand_sessions_at_most_and_takes_none_from_another() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    for number in range(1000):
        session = sessions.take("viewer", f"s{number}", "", check=False)
        session.connection = CONNECTION
        sessions.release(session)
    with pytest.raises(ClickHouseError, match=r"has 1000 sessions: close some"):
        sessions.take("viewer", "one more", "", check=False)
    sessions.release(sessions.take("viewer", "s7", "", check=True))
    sessions.release(sessions.take("writer", "its first", "", check=False))
    now = 61.0
    sessions.take("viewer", "one more", "", check=False)
