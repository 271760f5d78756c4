"""How something long says how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the step's name, what of it is done, and the total."""


def silent(step: str, done: int, total: int) -> None:
    """Where nobody looks."""
