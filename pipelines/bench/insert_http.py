"""The embedded server's insert over HTTP against the same insert in process: `wattstream bench --factors`.

Run as a module with a folder, a body and a count, it is the one in process, and prints its seconds as JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pipelines.bench.ground import ground
from pipelines.bench.load import LOADS
from pipelines.bench.processes import ROOT
from schemas.envelope import complete
from schemas.errors import WattStreamError
from schemas.events import TOKENS
from schemas.tables import migrations
from streams.inserts import Inserts

ROWS, TIMES = 200_000, 7


def http_over_in_process() -> float:
    """The speed of an insert of 200,000 rows as Native through the server, as a share of that in process: medians.

    :raises WattStreamError: where one of them fails.
    """
    load = LOADS["arrow"]
    times = np.arange(ROWS) + time.time_ns()
    frame = complete(TOKENS, load.frame(np.random.default_rng(1), 0, times))
    with ground(load) as there:
        Inserts(there.client).run("tokens", frame)
        body = there.client.raw_query("SELECT * FROM tokens", fmt="Native")
        over_http: list[float] = []
        for _ in range(TIMES):
            there.clear()
            begin = time.perf_counter()
            there.client.raw_insert("tokens", insert_block=body, fmt="Native")
            over_http.append(time.perf_counter() - begin)
        file = there.settings.home / "body"
        file.write_bytes(body)
        folder = there.settings.home / "in-process"
        folder.mkdir()
        command = [sys.executable, "-m", "pipelines.bench.insert_http", str(folder), str(file), str(TIMES)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WattStreamError(f"the insert in process failed: {done.stderr[-1000:]}")
    return statistics.median(json.loads(done.stdout)) / statistics.median(over_http)


def in_process(folder: Path, body: bytes, times: int) -> list[float]:
    """Seconds of each insert, by the engine of the server with the same settings, and no server."""
    from pipelines.local.clickhouse_engine import Engine

    engine = Engine(folder, ["writer"])
    connection = engine.connect("writer")
    connection.raw.query("USE wattstream", "Null")
    for migration in migrations():
        for statement in migration.statements:
            connection.raw.query(statement, "Null")
    found: list[float] = []
    for _ in range(times):
        connection.raw.query("TRUNCATE TABLE tokens", "Null")
        begin = time.perf_counter()
        connection.insert(b"INSERT INTO tokens", "Native", [body])
        found.append(time.perf_counter() - begin)
    connection.close()
    engine.close()
    return found


if __name__ == "__main__":
    print(json.dumps(in_process(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), int(sys.argv[3]))))
