"""Children find their imports compiled, whatever the environment says of keeping them."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local import compiled
from pipelines.local.compiled import compiled_imports
from pipelines.local.processes import spawn


@pytest.fixture
def keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(compiled, "_are_compiled", lambda: False)


@pytest.mark.usefixtures("keeps_none")
def test_imports_of_children_are_kept_in_the_home_where_the_environment_keeps_none(tmp_path: Path) -> None:
    (tmp_path / "imported.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import imported; print(imported.__cached__)"
    child = spawn("child", [sys.executable, "-c", code], home=tmp_path)
    assert child.wait(20) == 0
    kept = Path((tmp_path / "logs" / "child.log").read_text().strip())
    assert kept.is_relative_to(tmp_path / "bytecode")
    assert kept.exists()
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.usefixtures("keeps_none")
@pytest.mark.parametrize("why", ["python keeps them", "another folder is named", "they are compiled already"])
def test_else_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    assert compiled_imports(tmp_path)
    if why == "python keeps them":
        monkeypatch.setattr(sys, "dont_write_bytecode", False)
    elif why == "another folder is named":
        monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "mine"))
    else:
        monkeypatch.setattr(compiled, "_are_compiled", lambda: True)
    assert compiled_imports(tmp_path) == {}


def test_what_is_compiled_is_found(tmp_path: Path) -> None:
    look = "from pipelines.local import compiled; print(compiled._are_compiled())"
    found = [
        subprocess.run(
            [sys.executable, *flags, "-c", f"{first}{look}"],
            env={"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for flags, first in ((["-B"], ""), ([], "import polars; "))
    ]
    assert found == ["False", "True"]
