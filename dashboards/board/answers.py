"""What the board answers: which query a panel asks for these choices, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from dashboards.board import macros, timerange
from dashboards.board.data import Source, values
from dashboards.board.draw import draw
from dashboards.sql import bucket_seconds
from schemas.errors import UsageError

Json = dict[str, Any]

POINTS_PER_COLUMN = {"timeseries": 32, "stat": 24, "heatmap": 8, "state-timeline": 8}
"""Buckets asked for by the grid columns (of 24) a panel is wide, not by pixels: so all screens share one query."""

DEFAULT_REFRESH_SECONDS = 10
FIXED_KEEP_SECONDS = 30
OPTIONS_KEEP_SECONDS = 60
SHORTEST_REFRESH_SECONDS = 5


class UnknownName(UsageError):
    """A dashboard or panel that is not there."""


@dataclass(frozen=True)
class Choices:
    """What a screen asks for: the words of its URL."""

    start: str
    stop: str
    refresh: str
    variables: Mapping[str, tuple[str, ...]]


class Answers:
    """The dashboards, answered from one source."""

    def __init__(self, documents: list[Json], source: Source, clock: Any) -> None:
        self.documents = {document["uid"]: document for document in documents}
        self._source = source
        self._clock = clock

    def document(self, uid: str) -> Json:
        """A dashboard's JSON.

        :raises UnknownName: where there is none.
        """
        if uid not in self.documents:
            raise UnknownName(f"There is no dashboard {uid!r}.")
        return self.documents[uid]

    def panel(self, uid: str, number: int) -> Json:
        """A panel's JSON.

        :raises UnknownName: where there is none.
        """
        for panel in self.document(uid)["panels"]:
            if panel["id"] == number:
                return panel
        raise UnknownName(f"There is no panel {number} in the dashboard {uid!r}.")

    def span(self, document: Json, choices: Choices) -> timerange.TimeRange:
        """The range that is asked for; ``now`` is rounded to the refresh, and earlier by the dashboard's delay."""
        try:
            step = max(timerange.seconds(choices.refresh), SHORTEST_REFRESH_SECONDS)
        except timerange.TimeError:
            step = DEFAULT_REFRESH_SECONDS
        delay = timerange.seconds(document.get("timepicker", {}).get("nowDelay") or "0s")
        moment: datetime = self._clock()
        now = timerange.quantised(moment, step) - timerange.timedelta(seconds=delay)
        try:
            return timerange.time_range(choices.start, choices.stop, now)
        except timerange.TimeError as error:
            raise UsageError(str(error)) from error

    def keep(self, choices: Choices) -> float:
        """How long an answer is good for, s."""
        if "now" not in choices.start + choices.stop:
            return FIXED_KEEP_SECONDS
        try:
            return max(timerange.seconds(choices.refresh), SHORTEST_REFRESH_SECONDS)
        except timerange.TimeError:
            return DEFAULT_REFRESH_SECONDS

    async def options(self, uid: str, choices: Choices) -> list[Json]:
        """The dashboard's variables: their options and what is chosen of them; what is not an option is dropped."""
        document = self.document(uid)
        span = self.span(document, choices)
        found: list[Json] = []
        for variable in document.get("templating", {}).get("list", []):
            options = await self._options(variable, span)
            asked = choices.variables.get(variable["name"], (macros.ALL,))
            kept = [value for value in asked if value in options]
            found.append(
                {
                    "name": variable["name"],
                    "label": variable.get("label") or variable["name"],
                    "multi": bool(variable.get("multi")),
                    "options": options,
                    "chosen": kept or [macros.ALL],
                    "unknown": [value for value in asked if value not in options and value != macros.ALL],
                }
            )
        return found

    def option_queries(self, uid: str, choices: Choices) -> dict[str, str]:
        """The SQL that asks ClickHouse for the options of each variable, by its label."""
        document = self.document(uid)
        span = self.span(document, choices)
        variables = document.get("templating", {}).get("list", [])
        return {variable["label"]: _option_query(variable, span) for variable in variables}

    async def _options(self, variable: Json, span: timerange.TimeRange) -> list[str]:
        table = await self._source.table(_option_query(variable, span), OPTIONS_KEEP_SECONDS)
        return [str(value) for value in dict.fromkeys(values(table.column(0))) if value not in (None, "")]

    async def scope(self, uid: str, panel: Json, choices: Choices) -> macros.Scope:
        """What the panel's queries are expanded with.

        :raises UsageError: for a value that is not among its variable's options.
        """
        document = self.document(uid)
        span = self.span(document, choices)
        chosen: dict[str, macros.Variable] = {}
        for variable in document.get("templating", {}).get("list", []):
            options = await self._options(variable, span)
            asked = choices.variables.get(variable["name"], (macros.ALL,))
            if macros.ALL in asked:
                chosen[variable["name"]] = macros.Variable(tuple(options), everything=True)
                continue
            for value in asked:
                if value not in options:
                    raise UsageError(f"{variable['label']} {value!r} is not there; choose another.")
            chosen[variable["name"]] = macros.Variable(asked)
        points = panel.get("maxDataPoints") or POINTS_PER_COLUMN.get(panel["type"], 32) * panel["gridPos"]["w"]
        least = timerange.seconds(panel.get("interval") or "1s")
        return macros.Scope(span, timerange.interval_seconds(span, int(points), least), chosen)

    async def queries(self, uid: str, number: int, choices: Choices) -> tuple[macros.Scope, list[str]]:
        """The SQL that the panel asks ClickHouse."""
        panel = self.panel(uid, number)
        scope = await self.scope(uid, panel, choices)
        try:
            return scope, [macros.expand(target["rawSql"], scope) for target in panel.get("targets", [])]
        except macros.MacroError as error:
            raise UsageError(str(error)) from error

    async def tables(self, uid: str, number: int, choices: Choices) -> list[pa.Table]:
        """What ClickHouse answers the panel."""
        _, queries = await self.queries(uid, number, choices)
        return [await self._source.table(sql, self.keep(choices)) for sql in queries]

    async def drawn(self, uid: str, number: int, choices: Choices) -> Json:
        """What the page draws, with the queries it comes from."""
        panel = self.panel(uid, number)
        scope, queries = await self.queries(uid, number, choices)
        tables = [await self._source.table(sql, self.keep(choices)) for sql in queries]
        return draw(panel, tables) | {
            "title": macros.text(panel["title"], scope),
            "sql": queries,
            "interval": bucket_seconds(scope.span.seconds, scope.interval),
            "from": round(scope.span.start.timestamp() * 1000),
            "to": round(scope.span.stop.timestamp() * 1000),
        }


def _option_query(variable: Json, span: timerange.TimeRange) -> str:
    return macros.expand(str(variable["query"]), macros.Scope(span, 60))


def writable(table: pa.Table) -> pa.Table:
    """``table`` in types that CSV has words for."""
    for index, name in enumerate(table.column_names):
        if pa.types.is_nested(table.schema.field(name).type):
            table = table.set_column(index, name, pa.array(values(table.column(index)), pa.string()))
    return table
