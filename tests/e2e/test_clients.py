"""The tests that ClickHouse's Python client has of its own, against the embedded server, as docs/clients.md tells.

They are not part of this project: `make clients SUITE=folder` names the folder that holds them, else this is skipped.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from schemas.settings import ADMIN, generated_passwords

SUITE = os.environ.get("CLICKHOUSE_CONNECT_SUITE")
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
LEAST = 0.97

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not SUITE, reason="CLICKHOUSE_CONNECT_SUITE names no folder with clickhouse-connect's tests"),
]


def explained() -> set[str]:
    """The tests whose failure the page explains."""
    return set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8").split("### What fails, and why\n")[1]))


def run_suite(suite: Path, folder: Path, environment: dict[str, str]) -> tuple[Counter[str], dict[str, set[str]]]:
    """(how many ended how, the names of those tests), in a copy: their checkout would hide the installed client."""
    shutil.copytree(suite / "tests", folder / "tests")
    shutil.copy(suite / "pyproject.toml", folder)
    # What their tests need and ours don't, for this run alone.
    uv = [
        str(Path(sys.prefix, "bin", "uv")),
        "run",
        "--no-project",
        "--with",
        "pytest-asyncio",
        "--with",
        "pytest-mock",
    ]
    options = ["-o", "addopts=", "-o", "log_cli=false", "-p", "no:cacheprovider", "-q", "--junitxml=results.xml"]
    subprocess.run(
        [*uv, "python", "-m", "pytest", "tests/integration_tests", *options],
        cwd=folder,
        env=os.environ | {"VIRTUAL_ENV": sys.prefix} | environment,
        check=False,
    )
    counts: Counter[str] = Counter()
    names: dict[str, set[str]] = {}
    for case in ElementTree.parse(folder / "results.xml").iter("testcase"):
        ended = next((child.tag for child in case if child.tag in {"failure", "error", "skipped"}), "passed")
        ended = "failed" if ended in {"failure", "error"} else ended
        counts[ended] += 1
        names.setdefault(ended, set()).add(case.attrib["name"].split("[")[0])
    return counts, names


def test_the_python_clients_own_tests_pass(tmp_path: Path) -> None:
    assert SUITE
    home, port = tmp_path / "home", free_ports(1)
    with EmbeddedClickHouse(home, port, admin=True):
        password = generated_passwords(home / "secrets.json", admin=True)[ADMIN]
        server = {"HOST": "127.0.0.1", "PORT": str(port), "USER": ADMIN, "PASSWORD": password}
        counts, names = run_suite(
            Path(SUITE),
            tmp_path / "suite",
            {f"CLICKHOUSE_CONNECT_TEST_{name}": value for name, value in server.items()},
        )
    print(dict(counts), sorted(names.get("failed", ())))
    assert names.get("failed", set()) <= explained()
    assert counts["passed"] >= LEAST * (counts["passed"] + counts["failed"])
