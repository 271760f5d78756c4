"""What is built and locked: the wheel holds all of the five packages, and no dependency brings one of their names."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "streams", "dags", "dashboards", "pipelines")
UV = Path(sys.executable).with_name("uv")


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """Each requirement of the lock by its line, with its hashes."""
    lines = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in lines:
        text, *hashes = line.split(" --hash=")
        found[text.strip()] = (Requirement(text), [digest.strip() for digest in hashes])
    return found


def sources() -> set[str]:
    """All files of the five packages, data files included."""
    return {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the built wheel and nothing else: the path of its Python."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"  # built from a copy: setuptools leaves files beside what it builds
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree / file)
    (tree / "tests").mkdir()  # a folder beside the packages must not become one
    (tree / "tests" / "__init__.py").touch()
    python = folder / "environment" / "bin" / "python"
    commands: list[list[str | Path]] = [
        [UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, tree],
        [UV, "venv", "--python", sys.executable, folder / "environment"],
        [UV, "pip", "install", "--no-index", "--no-deps", "--python", python, "--find-links", folder, "wattstream"],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, text=True)
    return python


def test_the_wheel_holds_every_file_of_the_five_packages_and_no_other(installed: Path) -> None:
    site = next((installed.parents[1] / "lib").glob("python*/site-packages"))
    present = {
        str(file.relative_to(site))
        for file in site.rglob("*")
        if file.is_file()
        and not re.search(r"\.dist-info/|__pycache__|^_virtualenv|\.pth$", str(file.relative_to(site)))
    }
    assert present == sources()


def test_the_five_packages_import_in_an_empty_environment(installed: Path) -> None:
    code = f"import {', '.join(PACKAGES)}; print(schemas.__file__)"
    run = subprocess.run([installed, "-I", "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert str(installed.parents[1]) in run.stdout


def test_the_wheel_brings_the_command(installed: Path) -> None:
    assert (installed.parent / "wattstream").is_file()


def test_the_lock_has_hashes_for_everything_and_no_addresses() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()
    assert [line for line, (requirement, hashes) in locked().items() if not hashes or not requirement.specifier] == []
    assert all(digest.startswith("sha256:") for _, hashes in locked().values() for digest in hashes)


def test_the_lock_answers_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pinned = {requirement.name: requirement.specifier for requirement, _ in locked().values()}
    for line in direct:
        wanted = Requirement(line)
        assert wanted.name in pinned, line
        version = str(pinned[wanted.name]).removeprefix("==")
        assert wanted.specifier.contains(version), f"{line} is locked at {version}"


def test_this_environment_is_the_lock() -> None:
    """So that what the next test finds in the environment is true of the lock."""
    differing = [
        line
        for line, (requirement, _) in locked().items()
        if (requirement.marker is None or requirement.marker.evaluate())
        and not requirement.specifier.contains(metadata.version(requirement.name))
    ]
    assert differing == []


def test_no_locked_distribution_brings_a_top_level_package_of_our_names() -> None:
    names = metadata.packages_distributions()
    taken = {name: set(names.get(name, ())) - {"wattstream"} for name in PACKAGES}
    assert {name: distributions for name, distributions in taken.items() if distributions} == {}
