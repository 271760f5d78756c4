"""Compiled imports of a stack's processes, where the environment keeps none."""

import importlib.util
import sys
from pathlib import Path


def compiled_imports(home: Path) -> dict[str, str]:
    """Variables by which a Python process keeps its compiled imports in the stack's home, if they are nowhere else.

    Containers often set PYTHONDONTWRITEBYTECODE, and each start of a worker compiles all again: 2.3 s of CPU, else 0.9.
    In the home, which holds the passwords: who may write there may run code already.
    """
    if not sys.dont_write_bytecode or sys.pycache_prefix is not None or _are_compiled():
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(home.resolve() / "bytecode")}


def _are_compiled() -> bool:
    """As an image may have them; a prefix would hide those."""
    found = importlib.util.find_spec("polars")
    return found is not None and found.cached is not None and Path(found.cached).exists()
