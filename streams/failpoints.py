"""Places where a fault can be ordered, to prove that it does no harm: off unless WATTSTREAM_FAILPOINT is set."""

import os
import signal

_ORDER = os.environ.get("WATTSTREAM_FAILPOINT", "")
_ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def failpoint(name: str) -> None:
    """Kill or stop this process here if WATTSTREAM_FAILPOINT says ``name:kill`` or ``name:stop``; once for a stop."""
    global _ORDER
    point, _, action = _ORDER.partition(":")
    if point == name:
        _ORDER = ""
        os.kill(os.getpid(), _ACTIONS[action])
