"""The dashboards as JSON files, and what is checked of them before anybody sees them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import accelerators, campus, clickhouse_query, noc, tokens
from schemas.tables import CATALOG, ROLLUPS

Json = dict[str, Any]

SOURCES = (noc.dashboard, campus.dashboard, accelerators.dashboard, tokens.dashboard)

STEPPED = {"energy", "site_energy", "site_headroom", "completeness", *ROLLUPS, "usage"} | {
    "site_tokens",
    "region_tokens",
    "customer_usage",
    "package_usage",
}
VIEWS = {"energy", "package_balances", "completeness", "site_capacity"} | {f"{name}_in_steps" for name in STEPPED}
LEDGER = {"ingest_ranges", "deadletters", "audits", "emitters", "capacity"}
READABLE = VIEWS | LEDGER | set(CATALOG) | {table for tables in ROLLUPS.values() for table in tables}
"""What a panel may read: rollups, views, the ledger and the catalogue; never a raw table, which grows."""

UNITLESS = {"text", "row"}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a dashboard, and where."""

    dashboard: str
    panel: str
    message: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.dashboard}: {self.panel}: {self.message}" if self.panel else f"{self.dashboard}: {self.message}"


@cache
def _documents() -> tuple[str, ...]:
    clickhouse_query.register()
    return tuple(json.dumps(_mended(_plain(source().build())), indent=2, sort_keys=True) for source in SOURCES)


def all_dashboards() -> list[Json]:
    """Each dashboard as Grafana's JSON model, a copy of its own."""
    return [json.loads(document) for document in _documents()]


def build(out: Path) -> list[Path]:
    """Write one file a dashboard, ``<uid>.json``, into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for document in _documents():
        file = out / f"{json.loads(document)['uid']}.json"
        file.write_text(document + "\n")
        files.append(file)
    return files


def _plain(document: Dashboard) -> Json:
    return json.loads(json.dumps(document, cls=JSONEncoder))


def _mended(document: Json) -> Json:
    """What the SDK leaves out: ids of panels, without which links to a panel break, and the list of annotations."""
    for number, panel in enumerate(document["panels"], start=1):
        panel["id"] = number
    document["annotations"] = {"list": []}
    document["schemaVersion"] = 41  # of Grafana 11.6, whose SDK this is
    return document


def check(documents: list[Json] | None = None) -> list[Problem]:
    """What is wrong with the dashboards; empty when nothing is."""
    clickhouse_query.register()
    documents = all_dashboards() if documents is None else documents
    problems = [problem for document in documents for problem in _check(document)]
    for key in ("uid", "title"):
        seen: set[str] = set()
        for document in documents:
            if document[key] in seen:
                problems.append(Problem(document["uid"], "", f"the {key} {document[key]!r} is used twice"))
            seen.add(document[key])
    return problems


def _check(document: Json) -> Iterator[Problem]:
    uid = document["uid"]
    if not document.get("description"):
        yield Problem(uid, "", "has no description")
    again = _mended(_plain(Dashboard.from_json(json.loads(json.dumps(document)))))
    for path in _differences(document, again):
        yield Problem(uid, "", f"{path} is not known to Grafana's schema (a misspelt key?)")
    variables = {variable["name"] for variable in document.get("templating", {}).get("list", [])}
    for variable in document.get("templating", {}).get("list", []):
        for message in _check_sql(str(variable.get("query", "")), variables, known_only=True):
            yield Problem(uid, f"variable {variable['name']}", message)
    titles: set[str] = set()
    for panel in document["panels"]:
        title = panel.get("title", "")
        if title in titles:
            yield Problem(uid, title, "two panels of one title: who says which is broken?")
        titles.add(title)
        for message in _check_panel(panel, variables):
            yield Problem(uid, title, message)


def _check_panel(panel: Json, variables: set[str]) -> Iterator[str]:
    if not panel.get("title"):
        yield "has no title"
    if panel["type"] in UNITLESS:
        return
    if not panel.get("description"):
        yield "has no description"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield "has no unit"
    if not panel.get("interval"):
        yield "has no minimum interval: a bucket finer than the data makes rates too high"
    if not panel.get("targets"):
        yield "has no query"
    for target in panel.get("targets", []):
        yield from _check_sql(target["rawSql"], variables)


def _check_sql(sql: str, variables: set[str], *, known_only: bool = False) -> Iterator[str]:
    without_conditions = re.sub(r"\$__conditionalAll\((.*?),\s*\$\w+\)", r"\1", sql)
    for name in variables:
        if re.search(rf"\${name}\b|\$\{{{name}\}}|\[\[{name}\]\]", without_conditions):
            yield f"uses ${name} bare, which is not escaped: write ${{{name}:singlequote}}"
    for name in re.findall(r"\$\{(\w+)", sql):
        if not name.startswith("__") and name not in variables:
            yield f"uses the variable {name}, which the dashboard doesn't have"
    for table in tables_read(sql) - READABLE:
        yield f"reads {table}, which is neither a rollup, a view, the ledger nor the catalogue"
    if not known_only and "SELECT *" in sql.replace("SELECT * FROM (", ""):
        yield "selects *: a new column would become a new line"


def tables_read(sql: str) -> set[str]:
    """The tables and views that follow FROM or JOIN, names of WITH left out."""
    names = set(re.findall(r"(?<!FILL )(?<!ARRAY )\b(?:FROM|JOIN)\s+([a-z_][\w.]*)", sql))
    return names - set(re.findall(r"(?:\bWITH|,)\s+(\w+)\s+AS\s+\(", sql))


def _differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key}".lstrip(".")
            else:
                yield from _differences(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{path}[{number}]")
    elif before != after:
        yield path.lstrip(".")
