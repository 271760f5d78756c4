"""compose.yaml: it keeps to the Compose schema, shows nothing to the network, and holds no secret."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from pipelines.local.access import users_xml
from schemas.settings import USERS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_it_keeps_to_the_compose_schema() -> None:
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([*command, ROOT / "compose.yaml"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_it_has_kafka_clickhouse_and_a_grafana_with_its_datasource(services: dict[str, Any]) -> None:
    assert set(services) == {"kafka", "clickhouse", "grafana"}
    assert services["grafana"]["environment"]["GF_PLUGINS_PREINSTALL"] == "grafana-clickhouse-datasource"
    assert "controller" in services["kafka"]["environment"]["KAFKA_PROCESS_ROLES"]


def test_images_are_pinned(services: dict[str, Any]) -> None:
    assert [s["image"] for s in services.values() if not re.search(r":\d+\.\d+", s["image"])] == []


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    assert [p for s in services.values() for p in s["ports"] if not p.startswith("127.0.0.1:")] == []


def test_no_secret_has_a_value_or_a_default(services: dict[str, Any]) -> None:
    secrets = {k: v for s in services.values() for k, v in s["environment"].items() if "PASSWORD" in k}
    assert len(secrets) == 4
    assert [name for name, value in secrets.items() if not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)] == []


def test_mounted_files_are_there(services: dict[str, Any]) -> None:
    mounted = [v.split(":")[0] for s in services.values() for v in s["volumes"] if v.startswith("./")]
    assert mounted == ["./deploy/clickhouse-users.xml"]
    assert [path for path in mounted if not (ROOT / path).is_file()] == []


def granted(users: str, folder: Path) -> dict[str, set[str]]:
    """What the engine says that each user, or role of that name, may do once it has read such a users file."""
    folder.mkdir()
    (folder / "users.xml").write_text(users)
    config = folder / "config.xml"
    config.write_text(f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>")
    code = (
        "import sys\n"
        "from chdb import _chdb\n"
        "engine = _chdb.connect(sys.argv[1])\n"
        "for user in sys.argv[2:]:\n"
        "    print(engine.query(f'SHOW GRANTS FOR {user}', 'TSVRaw').bytes().decode())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"{folder}/data?config-file={config}", *USERS],
        env=os.environ | {f"WATTSTREAM_CLICKHOUSE_{user.upper()}_PASSWORD": "secret" for user in USERS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {user: {line for line in run.stdout.splitlines() if line.endswith(f" TO {user}")} for user in USERS}


def test_the_users_file_grants_what_the_embedded_server_does(tmp_path: Path) -> None:
    tree = ElementTree.parse(ROOT / "deploy" / "clickhouse-users.xml").getroot()
    # What a server's own users.xml brings: the user that the engine asks as, a profile and a quota.
    shipped = ElementTree.fromstring(
        "<clickhouse><profiles><default/></profiles><users><default><password></password><profile>default</profile>"
        "<networks><ip>::/0</ip></networks><quota>default</quota><access_management>1</access_management></default>"
        "</users><quotas><default/></quotas></clickhouse>"
    )
    for section in ("profiles", "users"):
        shipped.find(section).extend(tree.find(section))
    own = granted(ElementTree.tostring(shipped, encoding="unicode"), tmp_path / "own")
    embedded = granted(users_xml(), tmp_path / "embedded")
    assert own == embedded
    assert "GRANT SELECT, dictGet ON wattstream.* TO viewer" in own["viewer"]
