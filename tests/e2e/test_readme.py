"""The README, followed word for word: a trace imported into a stack, and queried from shell, Python and curl."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.local.processes import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.data, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
TRACE = ROOT.parent / "shared" / "data" / "llm" / "azure_llm_2023_code.parquet"
DEFAULT_CLICKHOUSE = "127.0.0.1:18802"


def block(language: str, beginning: str) -> str:
    """The fenced block of the README that begins so."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    return next(text for text in blocks if text.startswith(beginning))


@pytest.fixture(scope="module")
def type_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Types a block of the README into a shell, in a folder that has the trace; returns what it prints."""
    if not TRACE.is_file():
        pytest.skip(f"{TRACE.relative_to(ROOT.parent)} is not here")
    folder = tmp_path_factory.mktemp("readme")
    (folder / TRACE.name).symlink_to(TRACE)
    port_base = free_ports(20)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WATTSTREAM_HOME": str(folder / "home"),
        "WATTSTREAM_PORT_BASE": str(port_base),
    }

    def type_in(text: str) -> str:
        text = text.replace(DEFAULT_CLICKHOUSE, f"127.0.0.1:{port_base + 2}")
        command = ["bash", "-euo", "pipefail", "-c", text]
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    try:
        type_in("wattstream up --detach --no-simulate")
        yield type_in
    finally:
        subprocess.run(["wattstream", "down"], cwd=folder, env=environment, check=True)


def test_a_real_trace_is_imported_and_verified(type_in: Callable[[str], str]) -> None:
    printed = type_in(block("sh", "wattstream up --detach --no-simulate").split("\n", 1)[1])
    assert re.search(r"8819\s+18059974\s+245896", printed), printed


def test_the_shell_queries_answer(type_in: Callable[[str], str]) -> None:
    type_in(block("sh", 'wattstream sql "SELECT site'))
    assert type_in("head -c 4 tokens.parquet") == "PAR1"


def test_the_python_query_gives_a_frame(type_in: Callable[[str], str]) -> None:
    code = block("python", "import json") + "\nprint(frame.columns)\n"
    assert "watts" in type_in(f"python - <<'PYTHON'\n{code}PYTHON\n")


def test_the_curl_query_answers_and_its_password_stays_private(type_in: Callable[[str], str]) -> None:
    assert '"count()"' in type_in(block("sh", "wattstream status --json --secrets"))
    assert type_in("stat --format %a viewer.curl").strip() == "600"
