"""The command line as a process: what it prints, its exit codes, and never a traceback for a user's mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]


def wattstream(*arguments: str, home: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTSTREAM_")}
    if home is not None:
        environment["WATTSTREAM_HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        env=environment | variables | {"COLUMNS": "120"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def on(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return wattstream(*arguments, home=settings.home, WATTSTREAM_PORT_BASE=str(settings.port_base))


COMMANDS = "up,down,status,import,sql,verify,plan,migrate,doctor,dashboards build,dashboards check,dashboards publish"
COMMANDS += ",backup,restore,deadletters list,deadletters show,deadletters retry"


@pytest.mark.parametrize("command", COMMANDS.split(","))
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (["fly"], {}, "fly"),
        (["up", "--port-base", "many"], {}, "port-base"),
        (["status"], {"WATTSTREAM_PORT_BASE": "80"}, "port_base"),
        (["status"], {"WATTSTREAM_WORKERS": "none"}, "workers"),
        (["import", "azure-llm", "x.parquet", "--asap", "--speed", "2"], {}, "--speed"),
        (["import", "mooncake", "x.parquet", "--start", "noon"], {}, "noon"),
    ],
)
def test_off_words_exit_with_2_and_name_what_is_off(
    arguments: list[str], variables: dict[str, str], named: str, tmp_path: Path
) -> None:
    done = wattstream(*arguments, home=tmp_path, **variables)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["sql", "SELECT 1"], ["verify"], ["migrate"]])
def test_a_home_without_a_stack_is_an_error_that_leaves_nothing_behind(command: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = wattstream(*command, home=home)
    assert done.returncode == 1
    assert "wattstream up" in done.stderr
    assert not home.exists()


def test_down_where_nothing_runs_is_no_error(tmp_path: Path) -> None:
    done = wattstream("down", home=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "Nothing was running.")


def test_a_home_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = wattstream("up", "--detach", home=blocked / "home")
    assert done.returncode == 1
    assert "choose another --home" in done.stderr


@pytest.mark.e2e
class TestSql:
    def test_the_format_is_clickhouses_name_of_it(self, stack_parts: Settings) -> None:
        query = "SELECT number AS n, toString(number) AS s FROM numbers(2)"
        assert on(stack_parts, "sql", query).stdout == "n\ts\n0\t0\n1\t1\n"
        lines = on(stack_parts, "sql", query, "--format", "JSONEachRow").stdout.splitlines()
        assert [json.loads(line)["s"] for line in lines] == ["0", "1"]

    def test_a_format_in_the_query_wins(self, stack_parts: Settings) -> None:
        assert on(stack_parts, "sql", "SELECT 1 FORMAT CSV").stdout == "1\n"

    def test_an_answer_larger_than_what_is_held_back_is_whole(self, stack_parts: Settings) -> None:
        done = on(stack_parts, "sql", "SELECT number FROM numbers(300000)", "--format", "TSV")
        assert done.stdout == "".join(f"{number}\n" for number in range(300_000))

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("SELECT nothing_of_that_name", "nothing_of_that_name"),
            ("SELECT * FROM nowhere", "nowhere"),
            ("INSERT INTO deadletters (topic) VALUES ('x')", "Not enough privileges"),
            ("SELECT throwIf(number = 3000000) FROM numbers(4000000)", "throwIf"),
        ],
    )
    def test_a_query_that_fails_exits_with_1_and_the_servers_words(
        self, query: str, said: str, stack_parts: Settings
    ) -> None:
        done = on(stack_parts, "sql", query, "--format", "TSV")
        assert done.returncode == 1
        assert said in done.stderr
        assert "__exception__" not in done.stdout

    def test_a_wrong_port_says_what_to_look_at(self, stack_parts: Settings) -> None:
        done = wattstream("sql", "SELECT 1", home=stack_parts.home, WATTSTREAM_PORT_BASE="1024")
        assert done.returncode == 1
        assert "--port-base" in done.stderr


@pytest.mark.e2e
def test_doctor_names_who_has_a_port_and_fails(stack_parts: Settings) -> None:
    done = on(stack_parts, "doctor", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["ok"] is False
    taken = [check for check in document["checks"] if check["name"] == "ports"]
    assert any("kafka (pid" in check["found"] and "--port-base" in check["advice"] for check in taken)


@pytest.mark.e2e
def test_migrate_twice_changes_nothing(stack_parts: Settings) -> None:
    assert on(stack_parts, "migrate").returncode == 0
    done = on(stack_parts, "migrate", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["topics"] == []
