"""What all stacks of a user share: downloads, and imports that are compiled already."""

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """WATTSTREAM_CACHE, else the user's cache folder."""
    configured = os.environ.get("WATTSTREAM_CACHE")
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "wattstream"


def compiled_imports() -> dict[str, str]:
    """Variables by which a Python process keeps its compiled imports there, where it would keep none.

    Containers often set PYTHONDONTWRITEBYTECODE, and each start of a worker compiles all again: 2.3 s of CPU, else 0.9.
    """
    if not sys.dont_write_bytecode:
        return {}  # beside the sources, as ever
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_dir() / "bytecode")}
