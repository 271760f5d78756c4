"""Variables and macros of a query, as Grafana and its ClickHouse datasource expand them; pure.

Three steps in Grafana's order: ``$__conditionalAll`` asks whether a variable stands for all, variables are put in, then
the datasource's macros. A macro that is not known stays as it is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dashboards.board.timerange import TimeRange

ALL = "$__all"
"""The value of a variable that stands for all of its options."""


class MacroError(ValueError):
    """A query that can't be expanded; the message says why."""


@dataclass(frozen=True)
class Variable:
    """What is chosen of a variable: ``values`` are the options' own words, also where ``everything`` is chosen."""

    values: tuple[str, ...]
    everything: bool = False


@dataclass(frozen=True)
class Scope:
    """What a query is expanded with."""

    span: TimeRange
    interval: int
    variables: Mapping[str, Variable] = field(default_factory=dict)


def expand(sql: str, scope: Scope) -> str:
    """The query that ClickHouse is asked.

    :raises MacroError: for a variable in a form that would not be escaped, or a macro with the wrong arguments.
    """
    return macros(variables(conditions(sql, scope), scope), scope)


def conditions(sql: str, scope: Scope) -> str:
    """``$__conditionalAll(condition, $variable)`` is the condition, or ``1=1`` where the variable stands for all."""

    def choose(arguments: list[str]) -> str:
        if len(arguments) < 2:
            raise MacroError("$__conditionalAll needs a condition and a variable.")
        name = arguments[-1].strip().lstrip("$").strip("{}").partition(":")[0]
        variable = scope.variables.get(name)
        if variable is None:
            raise MacroError(f"$__conditionalAll asks for the variable {name!r}, which is not there.")
        return "1=1" if variable.everything else ",".join(arguments[:-1]).strip()

    return _calls(sql, {"conditionalAll": choose})


def quoted(value: str) -> str:
    """A string literal of ClickHouse. Grafana escapes the quote alone; a backslash before it would undo that."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FORMATS: dict[str, Callable[[tuple[str, ...]], str]] = {
    "singlequote": lambda values: ",".join(map(quoted, values)),
    "doublequote": lambda values: ",".join('"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values),
}
"""The formats that are safe in SQL."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)(?::(\w+))?\]\]|\$(\w+)")


def variables(sql: str, scope: Scope) -> str:
    """``${name:singlequote}``, and Grafana's own ``$__from``, ``$__to``, ``$__interval``, ``$__interval_ms``."""
    own = {
        "__from": str(_milliseconds(scope.span.start)),
        "__to": str(_milliseconds(scope.span.stop)),
        "__interval": f"{scope.interval}s",
        "__interval_ms": str(scope.interval * 1000),
        "__range_s": str(round(scope.span.seconds)),
    }

    def put(match: re.Match[str]) -> str:
        name = match[1] or match[3] or match[5]
        form = match[2] or match[4]
        if name in own and form is None:
            return own[name]
        variable = scope.variables.get(name)
        if variable is None:
            return match[0]
        if form not in _FORMATS:
            raise MacroError(f"${name} would not be escaped: write ${{{name}:singlequote}}.")
        return _FORMATS[form](variable.values)

    return _VARIABLE.sub(put, sql)


def text(template: str, scope: Scope) -> str:
    """A title or a text with the variables' values in words."""

    def put(match: re.Match[str]) -> str:
        variable = scope.variables.get(match[1] or match[3] or match[5])
        if variable is None:
            return match[0]
        return "All" if variable.everything else " + ".join(variable.values)

    return _VARIABLE.sub(put, template)


def macros(sql: str, scope: Scope) -> str:
    """The datasource's macros."""
    start, stop = _datetime(scope.span.start), _datetime(scope.span.stop)
    start_ms, stop_ms = _datetime64(scope.span.start), _datetime64(scope.span.stop)
    first, last = _date(scope.span.start), _date(scope.span.stop)

    def between(column: str, low: str, high: str) -> str:
        return f"{column} >= {low} AND {column} <= {high}"

    def both(arguments: list[str]) -> str:
        day, time = _some("dateTimeFilter", arguments, 2)
        return f"({between(day, first, last)}) AND ({between(time, start, stop)})"

    def one(name: str, use: Callable[[str], str]) -> Callable[[list[str]], str]:
        return lambda arguments: use(_some(name, arguments, 1)[0])

    sql = _calls(
        sql,
        {
            "timeFilter": one("timeFilter", lambda c: between(c, start, stop)),
            "timeFilter_ms": one("timeFilter_ms", lambda c: between(c, start_ms, stop_ms)),
            "dateFilter": one("dateFilter", lambda c: between(c, first, last)),
            "dateTimeFilter": both,
            "dt": both,
            "timeInterval": one(
                "timeInterval", lambda c: f"toStartOfInterval(toDateTime({c}), INTERVAL {scope.interval} second)"
            ),
            "timeInterval_ms": one(
                "timeInterval_ms",
                lambda c: f"toStartOfInterval(toDateTime64({c}, 3), INTERVAL {scope.interval * 1000} millisecond)",
            ),
        },
    )
    words = {
        "$__fromTime_ms": start_ms,
        "$__toTime_ms": stop_ms,
        "$__fromTime": start,
        "$__toTime": stop,
        "$__interval_s": str(scope.interval),
    }
    return re.sub(r"\$__\w+", lambda match: words.get(match[0], match[0]), sql)


def _some(name: str, arguments: list[str], count: int) -> list[str]:
    if len(arguments) != count or not all(argument.strip() for argument in arguments):
        raise MacroError(
            f"$__{name} needs {count} column{'s' if count > 1 else ''}, got {', '.join(arguments) or 'none'}."
        )
    return [argument.strip() for argument in arguments]


def _calls(sql: str, functions: Mapping[str, Callable[[list[str]], str]]) -> str:
    """``sql`` with the calls ``$__name(…)`` of these functions replaced; parentheses and quotes may nest."""
    parts: list[str] = []
    position = 0
    for match in re.finditer(r"\$__(\w+)\(", sql):
        if match[1] not in functions or match.start() < position:
            continue
        stop, arguments = _arguments(sql, match.end())
        parts += [sql[position : match.start()], functions[match[1]](arguments)]
        position = stop
    return "".join(parts) + sql[position:]


def _arguments(sql: str, start: int) -> tuple[int, list[str]]:
    depth, begin = 1, start
    arguments: list[str] = []
    for position, letter in _outside_quotes(sql, start):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if depth == 0 or (depth == 1 and letter == ","):
            arguments.append(sql[begin:position])
            begin = position + 1
        if depth == 0:
            return begin, arguments
    raise MacroError(f"A parenthesis is not closed: {sql[max(0, start - 20) : start + 40]!r}")


def _outside_quotes(sql: str, start: int) -> Iterator[tuple[int, str]]:
    quote = ""
    position = start
    while position < len(sql):
        letter = sql[position]
        if quote:
            if letter == "\\":
                position += 1
            elif letter == quote:
                quote = ""
        elif letter in "'\"`":
            quote = letter
        else:
            yield position, letter
        position += 1


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _datetime(at: datetime) -> str:
    return f"toDateTime({int(at.timestamp())})"


def _datetime64(at: datetime) -> str:
    return f"fromUnixTimestamp64Milli({_milliseconds(at)})"


def _date(at: datetime) -> str:
    return f"toDate('{at:%Y-%m-%d}')"
