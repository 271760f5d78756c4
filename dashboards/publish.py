"""Puts folder, datasource and dashboards into a Grafana; a second run changes nothing and says so."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
from grafana_api.grafana_face import GrafanaFace
from requests.exceptions import RequestException

from dashboards.build import all_dashboards
from dashboards.clickhouse_query import DATASOURCE_TYPE, DATASOURCE_UID
from schemas.errors import UsageError, WattStreamError
from schemas.settings import DATABASE, Settings, split_url

Json = dict[str, Any]
Change = Literal["created", "updated", "unchanged"]

FOLDER_UID = "wattstream"
FOLDER_TITLE = "WattStream"
DATASOURCE_NAME = "WattStream ClickHouse"
VIEWER = "viewer"
TIMEOUT_SECONDS = 15


@dataclass
class PublishReport:
    """What was done of each part."""

    url: str
    folder: Change = "unchanged"
    datasource: Change = "unchanged"
    dashboards: dict[str, Change] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether Grafana is another than before."""
        return any(change != "unchanged" for change in (self.folder, self.datasource, *self.dashboards.values()))

    def lines(self) -> list[str]:
        """For people, one line a part."""
        parts = {f"folder {FOLDER_TITLE}": self.folder, f"datasource {DATASOURCE_NAME}": self.datasource}
        parts |= {f"dashboard {self.url}/d/{uid}": change for uid, change in self.dashboards.items()}
        return [f"{part}: {change}" for part, change in parts.items()]


def publish(settings: Settings) -> PublishReport:
    """Bring the Grafana of the settings to what the code says; it is read first, and only differences are written.

    :raises UsageError: where no Grafana or no token is set.
    :raises WattStreamError: where Grafana doesn't answer, refuses the token, or what it holds was changed meanwhile.
    """
    if settings.grafana is None:
        raise UsageError("No Grafana is set: give its address in WATTSTREAM_GRAFANA, and WATTSTREAM_GRAFANA_TOKEN.")
    if settings.grafana_token is None:
        raise UsageError(
            "WATTSTREAM_GRAFANA_TOKEN is not set: make a service account with the role Admin in Grafana "
            "(Administration, Users and access) and give its token there."
        )
    url = settings.grafana.rstrip("/")
    grafana = _client(url, settings.grafana_token.get_secret_value())
    report = PublishReport(url)
    try:
        report.folder = _folder(grafana)
        report.datasource = _datasource(grafana, settings)
        for document in all_dashboards():
            report.dashboards[document["uid"]] = _dashboard(grafana, document)
    except GrafanaUnauthorizedError as error:
        raise WattStreamError(
            f"Grafana at {url} refused the token (401): it is wrong or has expired. "
            "Give a valid one in WATTSTREAM_GRAFANA_TOKEN."
        ) from error
    except GrafanaException as error:
        raise WattStreamError(_words(url, error)) from error
    except RequestException as error:
        raise WattStreamError(f"Grafana at {url} does not answer: {_cause(error)}. Is the address right?") from error
    return report


def _client(url: str, token: str) -> GrafanaFace:
    host, _, secure = split_url(url)
    parts = urlsplit(url)
    path = parts.path.strip("/")
    return GrafanaFace(
        auth=token,
        host=f"[{host}]" if ":" in host else host,
        port=parts.port,
        url_path_prefix=f"{path}/" if path else "",
        protocol="https" if secure else "http",
        timeout=TIMEOUT_SECONDS,
    )


def _words(url: str, error: GrafanaException) -> str:
    if error.status_code == 403:
        return (
            f"Grafana at {url} took the token but does not let it do this (403): {error.message}. "
            "Its service account needs the role Admin."
        )
    if error.status_code == 412:
        return f"A dashboard in Grafana at {url} was changed while it was published (412): publish again."
    return f"Grafana at {url} refused: {error.message} ({error.status_code})."


def _cause(error: RequestException) -> str:
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner))[:200]


def _found(ask: Callable[[], Json]) -> Json | None:
    """The answer, or None where Grafana says 404."""
    try:
        return ask()
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise


def _folder(grafana: GrafanaFace) -> Change:
    there = _found(lambda: grafana.folder.get_folder(FOLDER_UID))
    if there is None:
        grafana.folder.create_folder(FOLDER_TITLE, FOLDER_UID)
        return "created"
    if there["title"] == FOLDER_TITLE:
        return "unchanged"
    grafana.folder.update_folder(FOLDER_UID, FOLDER_TITLE, version=there.get("version"), overwrite=True)
    return "updated"


def _datasource(grafana: GrafanaFace, settings: Settings) -> Change:
    password = settings.password(VIEWER)
    wanted = _datasource_model(settings, password)
    # By uid: the dashboards name it so, and people may rename it.
    there = _found(lambda: grafana.api.GET(f"/datasources/uid/{DATASOURCE_UID}"))
    secret = {"secureJsonData": {"password": password}}
    if there is None:
        grafana.datasource.create_datasource(wanted | secret)
        return "created"
    settings_there = there.get("jsonData") or {}
    alike = all(there.get(key) == value for key, value in wanted.items() if key not in {"jsonData", "name"})
    same = all(settings_there.get(key) == value for key, value in wanted["jsonData"].items())
    if alike and same and (there.get("secureJsonFields") or {}).get("password"):
        return "unchanged"
    merged = wanted | {"name": there["name"], "jsonData": settings_there | wanted["jsonData"]}
    grafana.api.PUT(f"/datasources/uid/{DATASOURCE_UID}", json=merged | secret | {"version": there.get("version")})
    return "updated"


def _datasource_model(settings: Settings, password: str) -> Json:
    address = settings.grafana_clickhouse or settings.clickhouse_url
    host, port, secure = split_url(address)
    return {
        "uid": DATASOURCE_UID,
        "name": DATASOURCE_NAME,
        "type": DATASOURCE_TYPE,
        "access": "proxy",
        "jsonData": {
            "host": host,
            "port": port,
            "protocol": "http",
            "secure": secure,
            "username": VIEWER,
            "defaultDatabase": DATABASE,
            "queryTimeout": str(int(settings.clickhouse_timeout_seconds)),
            "wattstreamPassword": _fingerprint(password),
        },
    }


def _fingerprint(password: str) -> str:
    """Tells whether Grafana has this password, which it never gives back: 32 bits of a slow hash, too few to guess."""
    return hashlib.scrypt(password.encode(), salt=DATASOURCE_UID.encode(), n=2**14, r=8, p=1, dklen=4).hex()


def _dashboard(grafana: GrafanaFace, document: Json) -> Change:
    there = _found(lambda: grafana.dashboard.get_dashboard(document["uid"]))
    change: Change = "updated"
    version = 0
    if there is None:
        change = "created"
    else:
        version = there["dashboard"].get("version", 0)
        in_folder = there["meta"].get("folderUid") == FOLDER_UID
        if in_folder and _comparable(there["dashboard"]) == _comparable(document):
            return "unchanged"
    grafana.dashboard.update_dashboard(
        {
            "dashboard": document | {"id": None, "version": version},
            "folderUid": FOLDER_UID,
            "message": "Published by wattstream",
            "overwrite": False,
        }
    )
    return change


def _comparable(document: Json) -> Json:
    """Without what Grafana numbers itself."""
    return {key: value for key, value in document.items() if key not in {"id", "version"}}
