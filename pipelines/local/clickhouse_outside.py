"""What in a statement reaches outside of the database, and what the engine's grants don't cover: files, programs.

The raw text is searched, strings and comments included, so that no way to write a call hides it. In time that grows as
the text does: one pattern for all, comments included, takes 50 minutes for 35 empty ones, and stops the server.
"""

import re
from bisect import bisect_left
from collections.abc import Callable

# Settings whose value is a file to read or write, or an address to call.
REFUSED_SETTINGS = frozenset(
    {
        "format_schema",
        "format_template_row",
        "format_template_resultset",
        "output_format_schema",
        "input_format_record_errors_file_path",
        "format_avro_schema_registry_url",
        "format_schema_source",
    }
)
_WORD = re.compile(
    rb"\b(?P<function>file|executable|python|arrowstream|eval)"
    rb"|\b(?:INTO|FROM)(?P<clause>\b)"
    rb"|\bAPPLY\b[\W_]*+(?P<applied>file)\b"
    rb"|\b(?P<setting>" + "|".join(sorted(REFUSED_SETTINGS)).encode() + rb")\b[`\"\s]*+=",
    re.IGNORECASE,
)
_CLAUSE = re.compile(rb"(?:OUTFILE|INFILE)\b", re.IGNORECASE)
_MARK = re.compile(rb"/\*|\*/")
_SPACE = re.compile(rb"[`\"\s\x80-\xff]*+")


def outside(sql: bytes) -> bytes | None:
    """The first word that reaches outside of the database, None without one."""
    gaps = _Gaps(sql)
    for word in _WORD.finditer(sql):
        if found := word["setting"] or word["applied"]:
            return found
        for end in gaps.after(word.end()):
            if word["function"] and sql.startswith(b"(", end):
                return word["function"]
            if word["function"] is None and (clause := _CLAUSE.match(sql, end)):
                return clause.group()
    return None


class _Gaps:
    """Where spaces, quotes and comments behind a word end: where comments nest, as the engine's do, and where not."""

    def __init__(self, sql: bytes) -> None:
        self._sql = sql
        self._lines = [line.end() for line in re.finditer(rb"\n", sql)]
        self._ends = [end.end() for end in re.finditer(rb"\*/", sql)]
        self._nested: dict[int, int] = {}
        opened: list[int] = []
        for mark in _MARK.finditer(sql):
            if mark.group() == b"/*":
                opened.append(mark.start())
            elif opened:
                self._nested[opened.pop()] = mark.end()
        self._known: tuple[dict[int, int], dict[int, int]] = {}, {}

    def after(self, place: int) -> tuple[int, int]:
        """The ends of the gap at ``place``, by either reading."""
        return (
            self._walk(place, self._nested.get, self._known[0]),
            self._walk(place, lambda start: _next(self._ends, start + 4), self._known[1]),
        )

    def _walk(self, place: int, comment: Callable[[int], int | None], known: dict[int, int]) -> int:
        passed: list[int] = []
        while place not in known:
            passed.append(place)
            space = _SPACE.match(self._sql, place)
            end = space.end() if space else place
            two = self._sql[end : end + 2]
            if two == b"/*":
                after = comment(end)
            elif two in {b"--", b"//"} or two[:1] == b"#":
                after = _next(self._lines, end + 1)
            else:
                after = None
            if after is None:
                known[place] = end
            else:
                place = after
        end = known[place]
        known.update(dict.fromkeys(passed, end))
        return end


def _next(places: list[int], least: int) -> int | None:
    number = bisect_left(places, least)
    return places[number] if number < len(places) else None
