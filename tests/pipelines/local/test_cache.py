"""The cache of a user, and that children find their imports compiled whatever the environment says."""

import sys
from pathlib import Path

import pytest

from pipelines.local.cache import cache_dir, compiled_imports
from pipelines.local.processes import spawn


def test_imports_of_children_are_kept_where_the_environment_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTSTREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "imported.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import imported; print(imported.__cached__)"
    child = spawn("child", [sys.executable, "-c", code], home=tmp_path)
    assert child.wait(20) == 0
    kept = Path((tmp_path / "logs" / "child.log").read_text().strip())
    assert kept.is_relative_to(cache_dir())
    assert kept.exists()
    assert not (tmp_path / "__pycache__").exists()


def test_else_python_keeps_them_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert compiled_imports() == {}
