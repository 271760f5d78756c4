"""What a user is told instead of a traceback."""


class WattStreamError(Exception):
    """An expected failure. The message says what happened and what to do next; the command line exits with 1."""


class UsageError(WattStreamError):
    """The words of the command or a setting are off; the command line exits with 2."""
