"""A stand-in for Grafana: its documented HTTP API for folders, datasources and dashboards, and no more than that.

https://grafana.com/docs/grafana/latest/developers/http_api/ says what each call takes and answers. It keeps what
Grafana keeps: 401 without a valid token, 404 for what is not there, 409 for a folder or datasource that exists, and
versions: a dashboard is written with the version that was read, else 412, and each writing makes it one higher.
"""

import copy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports
from pipelines.migrate import migrate
from schemas.settings import Settings

Json = dict[str, Any]
TOKEN = "glsa_stand_in"


class Refused(Exception):
    def __init__(self, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.body = code, {"message": message} | more


@dataclass
class GrafanaStandIn:
    """What it holds, and every request that would have changed something."""

    url: str = ""
    folders: dict[str, Json] = field(default_factory=dict)
    datasources: dict[str, Json] = field(default_factory=dict)
    secrets: dict[str, Json] = field(default_factory=dict)
    dashboards: dict[str, Json] = field(default_factory=dict)
    in_folder: dict[str, str] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)
    allowed: bool = True

    def answer(self, method: str, path: str, token: str, body: Json) -> Json:
        if token != f"Bearer {TOKEN}":
            raise Refused(401, "Invalid API key")
        if method != "GET":
            if not self.allowed:
                raise Refused(403, "You'll need additional permissions to perform this action.")
            self.writes.append((method, path))
        match method, *path.removeprefix("/api/").split("/"):
            case "GET", "folders", uid:
                return self._get(self.folders, uid, "folder not found")
            case "POST", "folders":
                if body["uid"] in self.folders:
                    raise Refused(409, "a folder with that uid already exists")
                self.folders[body["uid"]] = body | {"id": len(self.folders) + 1, "version": 1}
                return self.folders[body["uid"]]
            case "PUT", "folders", uid:
                folder = self._get(self.folders, uid, "folder not found")
                folder |= {"title": body["title"], "version": folder["version"] + 1}
                return folder
            case "GET", "datasources", "uid", uid:
                return self._get(self.datasources, uid, "Data source not found")
            case "POST", "datasources":
                if any(one["name"] == body["name"] for one in self.datasources.values()):
                    raise Refused(409, "data source with the same name already exists")
                return {"datasource": self._keep(body["uid"], body, 1), "message": "Datasource added"}
            case "PUT", "datasources", "uid", uid:
                there = self._get(self.datasources, uid, "Data source not found")
                return {"datasource": self._keep(uid, body, there["version"] + 1), "message": "Datasource updated"}
            case "GET", "dashboards", "uid", uid:
                dashboard = self._get(self.dashboards, uid, "Dashboard not found")
                return {"dashboard": dashboard, "meta": {"folderUid": self.in_folder[uid], "slug": uid}}
            case "POST", "dashboards", "db":
                return self._save(body)
        raise Refused(404, f"Not found: {method} {path}")

    @staticmethod
    def _get(where: dict[str, Json], uid: str, message: str) -> Json:
        if uid not in where:
            raise Refused(404, message)
        return where[uid]

    def _keep(self, uid: str, body: Json, version: int) -> Json:
        """Secrets go in and never come out: only that there are some is told."""
        plain = {key: value for key, value in body.items() if key not in {"secureJsonData", "version"}}
        self.secrets[uid] = self.secrets.get(uid, {}) | body.get("secureJsonData", {})
        told = {"id": 7, "version": version, "readOnly": False, "orgId": 1, "url": "", "isDefault": False}
        self.datasources[uid] = told | plain | {"secureJsonFields": dict.fromkeys(self.secrets[uid], True)}
        return self.datasources[uid]

    def _save(self, body: Json) -> Json:
        dashboard, uid = copy.deepcopy(body["dashboard"]), body["dashboard"]["uid"]
        if body["folderUid"] not in self.folders:
            raise Refused(400, "folder not found")
        there = self.dashboards.get(uid)
        if there and not body.get("overwrite") and dashboard.get("version") != there["version"]:
            raise Refused(412, "The dashboard has been changed by someone else", status="version-mismatch")
        version = there["version"] + 1 if there else 1
        self.dashboards[uid] = dashboard | {
            "id": there["id"] if there else len(self.dashboards) + 1,
            "version": version,
        }
        self.in_folder[uid] = body["folderUid"]
        return {
            "id": self.dashboards[uid]["id"],
            "uid": uid,
            "url": f"/d/{uid}",
            "status": "success",
            "version": version,
        }


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = Settings(home=tmp_path_factory.mktemp("dashboards"), port_base=free_ports(20))
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")):
        migrate(settings)
        with settings.clickhouse_client("writer") as opened:
            yield opened


@pytest.fixture
def grafana() -> Iterator[GrafanaStandIn]:
    stand_in = GrafanaStandIn()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            try:
                status, answer = (
                    200,
                    stand_in.answer(self.command, self.path, self.headers.get("Authorization", ""), body),
                )
            except Refused as refusal:
                status, answer = refusal.status, refusal.body
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _reply

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield stand_in
    server.shutdown()
    server.server_close()
    thread.join(5)
