"""When a topic is flushed, and whose turn it is where an audit is due as well. Pure: the clock's seconds are told."""

# From one flush to the next it is flush_seconds, and where the last one took more than a third of that for nearly
# nothing, thrice that, but not beyond this many flush_seconds: small flushes cost as much as one of so many rows, so on
# a busy machine fewer of them leave room for what keeps it busy (three workers that flushed each second had 4 cores'
# worth to do on 2). Of what a large one takes, waiting saves that part alone: 100,000 rows a second were 1.8 s old
# instead of 1.0 when their flushes, of 0.6 s, waited like small ones.
FLUSH_SHARE, LONGEST_FLUSHES = 3, 2
ROWS_OF_NOTHING = 20_000


class Rhythm:
    """The turns of flushes and audits of one topic."""

    def __init__(self, flush_seconds: float) -> None:
        self._flush_seconds = flush_seconds
        self._earliest = 0.0
        """When the next flush may be, unless there is much."""
        self._wasted = 0.0
        """Seconds of the last flush that another would take, too, if it held next to nothing."""
        self._audit_asked = False
        self._audited = False
        """Nothing was flushed since the last audit."""
        self.due: float | None = None
        """When the next flush is; None while nothing waits for one."""

    def look(self, now: float, *, waiting: bool) -> None:
        """Take note of whether something waits: then a flush is due in ``flush_seconds``, unless one is already."""
        if not waiting:
            self.due = None  # or who waits for a time in the past would spin
        elif self.due is None:
            self.due = max(now + self._flush_seconds, self._earliest)

    def late(self, now: float) -> bool:
        """Whether a flush is due by now."""
        return self.due is not None and now >= self.due

    def flush_begins(self, now: float) -> None:
        """The next one follows after a pause that leaves others room."""
        self._audited = False
        pause = min(FLUSH_SHARE * self._wasted, LONGEST_FLUSHES * self._flush_seconds)
        self.due = self._earliest = now + max(self._flush_seconds, pause)

    def flush_ends(self, seconds: float, rows: int) -> None:
        """It took so long for so many."""
        self._wasted = seconds * ROWS_OF_NOTHING / (ROWS_OF_NOTHING + rows)

    def ask_audit(self) -> None:
        """One is wanted before the next flush, or after it where the last one was just before."""
        self._audit_asked = True

    def audits_turn(self, *, waiting: bool) -> bool:
        """One is asked for, and a flush was since the last one, or has nothing to write.

        On a busy machine an audit may take as long as the time to the next one is: nothing would be flushed ever again.
        """
        return self._audit_asked and not (self._audited and waiting)

    def audit_begins(self) -> None:
        """What was asked for is done now."""
        self._audit_asked, self._audited = False, True
