"""The contracts in pyproject.toml catch an import that goes the wrong way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "streams", "dags", "dashboards", "pipelines")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's Python files, to plant an import into."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            copy = folder / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return folder


def complaints(tree: Path) -> str:
    """What import-linter says of the tree; empty where every contract is kept."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--cache-dir", tree / ".cache"]
    run = subprocess.run(command, cwd=tree, env={"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False)
    return "" if run.returncode == 0 else run.stdout + run.stderr


def test_the_arrows_point_down(tree: Path) -> None:
    assert complaints(tree) == ""


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("schemas/events.py", "import streams"),
        ("schemas/settings.py", "import pipelines"),
        ("streams/rollup.py", "import dashboards.build"),
        ("streams/rollup.py", "import confluent_kafka"),
        ("streams/rollup.py", "import schemas.settings"),  # and so ClickHouse, one step further
        ("streams/sink.py", "import streams.transport"),
        ("streams/app.py", "import dags"),
        ("dashboards/build.py", "import streams.rollup"),
        ("dashboards/panels.py", "import clickhouse_connect"),
        ("dags/demand.py", "import streams.sink"),
        ("dags/demand.py", "import dashboards.build"),
        ("dags/demand.py", "import pipelines"),
        ("dags/forecasting/models.py", "import clickhouse_connect"),
    ],
)
def test_an_import_the_wrong_way_is_caught(tree: Path, file: str, planted: str) -> None:
    path = tree / file
    before = path.read_text()
    path.write_text(f"{before}\n{planted}\n")
    try:
        assert Path(file).with_suffix("").as_posix().replace("/", ".") in complaints(tree)
    finally:
        path.write_text(before)


@pytest.mark.parametrize("planted", ["import streams.rollup", "from dashboards.publish import publish"])
def test_what_a_dag_may_know_is_let_through(tree: Path, planted: str) -> None:
    path = tree / "dags/demand.py"
    before = path.read_text()
    path.write_text(f"{before}\n{planted}\n")
    try:
        assert complaints(tree) == ""
    finally:
        path.write_text(before)
