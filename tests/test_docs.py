"""The pages: what is made from the code is current, links lead somewhere, and what they tell to type can be typed."""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from dags.forecasting.outlook import BASELINES, CANDIDATES, MEAN
from pipelines.cli import app
from schemas.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
VARIABLES = {f"WATTSTREAM_{name.upper()}" for name in Settings.model_fields}
# What compose.yaml alone reads.
COMPOSE_VARIABLES = {f"WATTSTREAM_{name}" for name in ("KAFKA_PORT", "CLICKHOUSE_PORT", "GRAFANA_PORT")} | {
    "WATTSTREAM_GRAFANA_ADMIN_PASSWORD"
}


def blocks(language: str) -> list[Any]:
    """The fenced blocks of a language on all pages."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(pattern.findall(page.read_text(encoding="utf-8")), 1)
    ]


def commands(block: str) -> Iterator[list[str]]:
    """The words of each call of wattstream in a block of shell, up to a pipe or redirection."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
        while "wattstream" in words:
            words = words[words.index("wattstream") + 1 :]
            ends = [number for number, word in enumerate(words) if set(word) <= set("|<>&;()")]
            yield words[: ends[0] if ends else None]


def parse(command: Any, name: str, words: list[str]) -> None:
    """Read the words as the command line would, run nothing."""
    context = command.make_context(name, list(words))
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, child, words = command.resolve_command(context, rest)
        parse(child, name, words)


def anchors(page: Path) -> set[str]:
    """What a link can point at inside a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """What the code says the made files should read; in a process of its own, for the sake of the engine."""
    command = [sys.executable, "-m", "pipelines.reference", "--print", "made"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_what_is_made_from_the_code_is_current(made: dict[str, str]) -> None:
    stale = [path for path, text in made.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "`make docs` writes them anew"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_is(name: str) -> None:
    assert Settings.model_fields[name].description


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_page_on_forecasts_tells_every_model() -> None:
    page = (ROOT / "docs" / "forecasting.md").read_text(encoding="utf-8")
    names = [model.name for model in (*BASELINES, *CANDIDATES)] + [MEAN]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_readme_shows_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "make up" in lines
    assert "make test" in lines


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_of_wattstream_can_be_typed(block: str) -> None:
    for words in commands(block):
        parse(get_command(app), "wattstream", words)


@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_blocks_are_shell(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_are_python(block: str) -> None:
    ast.parse(block)


def test_inline_commands_of_wattstream_are_there() -> None:
    names = set(get_command(app).commands)
    inline = {
        found for page in PAGES for found in re.findall(r"`wattstream ([a-z]+)", page.read_text(encoding="utf-8"))
    }
    assert inline <= names


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    inline = [found for page in PAGES for found in re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8"))]
    typed = [found for shell in blocks("sh") for found in re.findall(r"^make ([a-z]+)", shell.values[0], re.MULTILINE)]
    assert {*inline, *typed} <= targets


@pytest.mark.parametrize("page", [*PAGES, ROOT / "compose.yaml"], ids=lambda page: page.name)
def test_every_variable_is_a_setting(page: Path) -> None:
    named = set(re.findall(r"WATTSTREAM_[A-Z][A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
    assert named <= VARIABLES | COMPOSE_VARIABLES


def test_queries_on_the_pages_run() -> None:
    """Each on the empty tables of an engine: names, types and syntax."""
    queries = [parameter.values[0] for parameter in blocks("sql")]
    queries += [
        words[1] for parameter in blocks("sh") for words in commands(parameter.values[0]) if words[:1] == ["sql"]
    ]
    for parameter in blocks("python"):
        queries += [
            node.value
            for node in ast.walk(ast.parse(parameter.values[0]))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("SELECT ")
        ]
    assert len(queries) >= 4
    code = (
        "import json, sys\n"
        "from pipelines.reference import engine\n"
        "with engine() as session:\n"
        "    for query in json.load(sys.stdin):\n"
        "        session.query(query)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=json.dumps(queries), text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
