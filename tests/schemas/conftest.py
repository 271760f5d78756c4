"""A real engine with all tables and views, for one list of statements."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

# chdb allows one engine a process: each file's questions are asked in a process of their own.
ENGINE = """
import json, sys
from chdb.session import Session
from schemas.tables import migrations
from tempfile import TemporaryDirectory
with TemporaryDirectory() as folder:
    session = Session(folder)
    session.query("CREATE DATABASE wattstream")
    session.query("USE wattstream")
    for migration in migrations():
        for statement in migration.statements:
            session.query(statement)
    answers = []
    for statement in json.load(sys.stdin):
        answers.append(str(session.query(statement, "JSONCompact")) or "{}")
    print(json.dumps([json.loads(answer).get("data", []) for answer in answers]))
    session.close()
"""


@pytest.fixture(scope="session")
def asked() -> Callable[[list[str]], list[Any]]:
    """Runs statements one after the other on empty tables; the rows of each."""

    def ask(statements: list[str]) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-c", ENGINE], input=json.dumps(statements), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    return ask
