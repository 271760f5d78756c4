"""Sessions: connections that outlive a request, with their temporary tables and settings, one request at a time."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.local import access
from pipelines.local.clickhouse_engine import INPUT_SETTINGS, Connection, Engine, Job, Run
from pipelines.local.clickhouse_errors import ClickHouseError

_TIMEOUT_SECONDS = 60
_LONGEST_SECONDS = 3600
_MOST = 1000  # of one user: each holds a connection for as long as it is asked to


@dataclass
class Session:
    """A session and who holds it; ``connection`` is made by its first request."""

    key: tuple[str, str]
    timeout_seconds: float
    connection: Connection | None = None
    busy: bool = True
    expires: float = 0


class Sessions:
    """The sessions of all users; used from the event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}

    def take(self, user: str, name: str, timeout: str, check: bool) -> Session:
        """Lock a session, new unless it is known.

        :raises ClickHouseError: 373 while another request holds it, 372 where it should exist and doesn't, 202 where
            the user has too many.
        """
        try:
            seconds = float(timeout or _TIMEOUT_SECONDS)
        except ValueError:
            raise ClickHouseError(374, f"Invalid session timeout: '{timeout}'", "INVALID_SESSION_TIMEOUT") from None
        if not 0 < seconds <= _LONGEST_SECONDS:
            raise ClickHouseError(
                374, f"Session timeout '{timeout}' is larger than {_LONGEST_SECONDS} s", "INVALID_SESSION_TIMEOUT"
            )
        session = self._sessions.get((user, name))
        if session is None:
            if check:
                raise ClickHouseError(372, f"Session {name} not found", "SESSION_NOT_FOUND")
            now = self._clock()
            if sum(s.key[0] == user and (s.busy or s.expires > now) for s in self._sessions.values()) >= _MOST:
                raise ClickHouseError(
                    202, f"{user} has {_MOST} sessions: close some (close_session=1)", "TOO_MANY_SIMULTANEOUS_QUERIES"
                )
            session = self._sessions[user, name] = Session((user, name), seconds)
        elif session.busy:
            raise ClickHouseError(373, f"Session {name} is locked by a concurrent client", "SESSION_IS_LOCKED")
        session.busy, session.timeout_seconds = True, seconds
        return session

    def release(self, session: Session, close: bool = False) -> list[Connection]:
        """Unlock a session; gives the connection to close where it ends here."""
        session.busy = False
        session.expires = self._clock() + session.timeout_seconds
        if close or session.connection is None:
            self._sessions.pop(session.key, None)
            return [session.connection] if session.connection else []
        return []

    def expired(self) -> list[Connection]:
        """Forget sessions past their time; gives their connections to close."""
        now = self._clock()
        late = [s for s in self._sessions.values() if not s.busy and s.expires <= now]
        for session in late:
            del self._sessions[session.key]
        return [s.connection for s in late if s.connection]

    def all(self) -> list[Connection]:
        """Forget every session; gives the connections to close."""
        connections = [s.connection for s in self._sessions.values() if s.connection]
        self._sessions.clear()
        return connections


class Execution:
    """A job on its connection, from SET ROLE to giving the connection back; called in threads."""

    def __init__(self, engine: Engine, job: Job, session: Session | None) -> None:
        self._engine = engine
        self.job = job
        self.session = session
        self.over = False
        self._connection: Connection | None = None
        self._before: dict[str, bytes | None] = {}
        self.has_result = False
        self.run: Run

    def start(self) -> bytes:
        """Connect, prepare, check and run to the first bytes."""
        job, session = self.job, self.session
        connection = session.connection if session else None
        if connection is None:
            connection = self._engine.connect(job.user)
            if session:
                session.connection = connection
        self._connection = connection
        self.run = Run(connection, job)
        facts = connection.raw.classify_query(job.statement.sql)
        access.refuse_class(job.statement, facts)
        self.has_result = "READ_ONLY" in str(facts["query_class"]) or job.statement.keyword in {b"KILL", b"CHECK"}
        changed = [*job.settings, *(INPUT_SETTINGS if job.statement.input else ())]
        if session and changed:
            self._before = connection.values(changed)
        connection.prepare(job)
        return self.run.start()

    def finish(self) -> None:
        """Give the connection back; a session keeps it, with its own settings as they were."""
        if self._connection is None:
            return
        with contextlib.suppress(RuntimeError):
            self.run.stop()
            if self.session:
                self._connection.restore(self._before)
        if not self.session:
            self._connection.close()
