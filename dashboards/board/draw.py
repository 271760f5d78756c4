"""A panel and its tables → what is drawn, free of theme and library; pure, so that it can be held against examples.

Grafana's ways are kept: a time series is pivoted from long to wide, a name comes from ``displayName``, a number out of
a series from ``reduceOptions``, and what a column looks like from the field defaults and its overrides.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from dashboards.board.data import is_number, is_time, values

Json = dict[str, Any]

LONG = 3000
"""Rows of a table that are sent to the page; it says how many there are more."""


def draw(panel: Json, tables: list[pa.Table]) -> Json:
    """What the page draws of this panel; ``empty`` where there is nothing to draw."""
    kind = panel["type"]
    base = {
        "kind": kind,
        "field": _field(panel.get("fieldConfig", {}).get("defaults", {})),
        "options": panel.get("options", {}),
    }
    if kind == "text":
        return base
    table = tables[0]
    if kind in {"timeseries", "state-timeline", "heatmap"}:
        return base | _series(panel, table)
    if kind in {"stat", "gauge", "bargauge"}:
        return base | _numbers(panel, table)
    if kind in {"table", "geomap"}:
        return base | _table(panel, table)
    return base | {"unknown": True, "empty": False}


def _field(config: Json) -> Json:
    """The part of a field's settings that the page needs."""
    keys = (
        "unit",
        "decimals",
        "min",
        "max",
        "thresholds",
        "mappings",
        "color",
        "displayName",
        "links",
        "noValue",
        "custom",
    )
    return {key: config[key] for key in keys if config.get(key) is not None}


def _settings(panel: Json, name: str) -> Json:
    """The defaults with the overrides for the field ``name``."""
    config: Json = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"].get("overrides", []):
        matcher = override["matcher"]
        hit = matcher.get("options") == name
        if matcher["id"] == "byRegexp":
            hit = re.fullmatch(str(matcher["options"]).strip("/"), name) is not None
        if hit:
            for change in override["properties"]:
                _set(config, change["id"], change.get("value"))
    return _field(config)


def _set(config: Json, path: str, value: Any) -> None:
    head, _, rest = path.partition(".")
    if rest:
        config[head] = dict(config.get(head) or {})
        _set(config[head], rest, value)
    else:
        config[head] = value


def _series(panel: Json, table: pa.Table) -> Json:
    """Long to wide: one shared list of times, and a list of values a series, null where there is none."""
    times = next((name for name in table.column_names if is_time(table.schema.field(name).type)), None)
    if times is None:
        return {"times": [], "series": [], "empty": True}
    is_state = panel["type"] == "state-timeline"
    names = [name for name in table.column_names if name != times]
    numbers = [name for name in names if is_number(table.schema.field(name).type)]
    texts = [name for name in names if name not in numbers]
    measured = numbers
    if is_state and not numbers:  # of words, the last is the state and the others say whose
        measured = texts[-1:]
    labels = [name for name in texts if name not in measured]
    stamps: list[int] = values(table.column(times))
    axis = sorted(set(stamps))
    place = {stamp: index for index, stamp in enumerate(axis)}
    keys = list(zip(*(values(table.column(name)) for name in labels), strict=True)) if labels else [()] * len(stamps)
    series: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
    for name in measured:
        for stamp, key, value in zip(stamps, keys, values(table.column(name)), strict=True):
            series.setdefault((name, key), [None] * len(axis))[place[stamp]] = value
    drawn = [
        {
            "name": _name(panel, name, dict(zip(labels, key, strict=True))),
            "field": name,
            "values": row,
        }
        for (name, key), row in sorted(series.items(), key=lambda item: (measured.index(item[0][0]), item[0][1]))
    ]
    drawn = [one for one in drawn if any(value is not None for value in one["values"])]
    if panel["type"] == "heatmap" and all(re.fullmatch(r"\d+(\.\d+)?", one["name"]) for one in drawn):
        drawn.sort(key=lambda one: float(one["name"]))  # buckets of a histogram, from low to high
    calcs = panel.get("options", {}).get("legend", {}).get("calcs", [])
    for one in drawn:
        one["calcs"] = {calc: reduce(one["values"], calc) for calc in calcs}
    return {"times": axis, "series": drawn, "empty": not drawn}


def _name(panel: Json, name: str, labels: Json) -> str:
    """Grafana's name of a field: ``displayName`` with its labels put in, else the column's name and its labels."""
    template = _settings(panel, name).get("displayName")
    if template:
        return re.sub(r"\$\{__field\.labels\.(\w+)\}", lambda m: str(labels.get(m[1], "")), template)
    return " ".join([name, *map(str, labels.values())]) if labels else name


def _numbers(panel: Json, table: pa.Table) -> Json:
    """Single numbers: one a row, or one a series reduced, with the series under it where it is over time."""
    reduce_options = panel.get("options", {}).get("reduceOptions", {})
    calc = (reduce_options.get("calcs") or ["lastNotNull"])[0]
    if reduce_options.get("values"):
        return _numbers_by_row(panel, table)
    if any(is_time(table.schema.field(n).type) for n in table.column_names) and len(table.column_names) > 1:
        wide = _series(panel, table)
        numbers = [
            {
                "name": one["name"],
                "value": reduce(one["values"], calc),
                "field": _settings(panel, one["field"]),
                "trend": one["values"],
            }
            for one in wide["series"]
        ]
        return {"times": wide["times"], "numbers": numbers, "empty": not numbers}
    numbers = []
    for name in table.column_names:
        if is_number(table.schema.field(name).type) or is_time(table.schema.field(name).type):
            value = reduce(values(table.column(name)), calc)
            if value is not None:
                numbers.append({"name": name, "value": value, "field": _settings(panel, name)})
    return {"numbers": numbers, "empty": not numbers}


def _numbers_by_row(panel: Json, table: pa.Table) -> Json:
    names = table.column_names
    numeric = [name for name in names if is_number(table.schema.field(name).type)]
    words = [name for name in names if name not in numeric]
    titles = [" ".join(map(str, key)) for key in zip(*(values(table.column(w)) for w in words), strict=True)]
    numbers = [
        {"name": titles[row] if titles else name, "value": value, "field": _settings(panel, name)}
        for name in numeric
        for row, value in enumerate(values(table.column(name)))
        if value is not None
    ]
    return {"numbers": numbers, "empty": not numbers}


def _table(panel: Json, table: pa.Table) -> Json:
    columns = [
        {
            "name": name,
            "type": _kind(table.schema.field(name).type),
            "field": _settings(panel, name),
            "values": values(table.column(name).slice(0, LONG)),
        }
        for name in table.column_names
    ]
    return {"columns": columns, "rows": table.num_rows, "empty": table.num_rows == 0}


def _kind(kind: pa.DataType) -> str:
    return "time" if is_time(kind) else "number" if is_number(kind) else "text"


def _total(known: list[Any]) -> Any:
    """Exact where all are whole numbers."""
    return sum(known) if all(isinstance(number, int) for number in known) else math.fsum(known)


_OF_ALL: dict[str, Callable[[list[Any]], Any]] = {
    "last": lambda numbers: numbers[-1] if numbers else None,
    "first": lambda numbers: numbers[0] if numbers else None,
    "count": len,
}
_OF_KNOWN: dict[str, Callable[[list[Any]], Any]] = {
    "lastNotNull": lambda known: known[-1],
    "firstNotNull": lambda known: known[0],
    "sum": _total,
    "mean": lambda known: math.fsum(known) / len(known),
    "max": max,
    "min": min,
    "range": lambda known: max(known) - min(known),
}


def reduce(numbers: list[Any], calc: str) -> Any:
    """One number out of a series, as Grafana's reducers make it; null where there is none."""
    if calc in _OF_ALL:
        return _OF_ALL[calc](numbers)
    known = [number for number in numbers if number is not None]
    return _OF_KNOWN[calc](known) if known else None
