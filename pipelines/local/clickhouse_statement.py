"""What a request asks for: the SQL before its inline data, its kind, its format, a call of input()."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# Strings and comments as the engine's lexer has them, typographic quotes and heredocs included. A string that doesn't
# end is all the rest: looking for its end at each quote in it anew takes minutes for 64 KiB.
_TOKEN = re.compile(
    rb"""
      (?P<skip>   \s+ | --[^\n]* | //[^\n]* | \#[ !][^\n]* )
    | (?P<open>   /\* )
    | (?P<tag>    \$\w*+\$ )
    | (?P<string> '(?:[^'\\]|\\.?|'')*+(?:'|\Z) | \xe2\x80\x98.*?(?:\xe2\x80\x99|\Z) )
    | (?P<quoted> `(?:[^`\\]|\\.?|``)*+(?:`|\Z) | "(?:[^"\\]|\\.?|"")*+(?:"|\Z) | \xe2\x80\x9c.*?(?:\xe2\x80\x9d|\Z) )
    | (?P<word>   [A-Za-z_][A-Za-z0-9_$]* )
    | (?P<number> [0-9][0-9A-Za-z_.]* )
    | (?P<other>  . )
    """,
    re.DOTALL | re.VERBOSE,
)
_COMMENT_MARK = re.compile(rb"/\*|\*/")
_AFTER_FORMAT = re.compile(rb"[ \t\f]*\r?\n?")
_SELECTS = frozenset([b"SELECT", b"WITH", b"FROM", b"(", b"VALUES"])
_SHOWS = frozenset([b"EXPLAIN", b"DESCRIBE", b"DESC", b"SHOW", b"EXISTS", b"CHECK"])
_STEERS = frozenset([b"KILL", b"SET", b"USE"])
_OPENING, _CLOSING = b"([{", b")]}"


class Token(NamedTuple):
    """A word or mark of SQL; ``text`` as written, ``upper`` to compare keywords, ``depth`` of brackets around it."""

    kind: str
    text: bytes
    upper: bytes
    start: int
    end: int
    depth: int


@dataclass(frozen=True)
class Input:
    """The call ``input('structure')`` in a statement: where it stands, and the structure's literal as written."""

    start: int
    end: int
    structure: bytes


@dataclass(frozen=True)
class Statement:
    """One statement of a request.

    ``sql`` ends where inline data begins, ``data`` is that offset in the request's text (None: no data is awaited);
    ``format`` is its FORMAT clause, None without one; ``sql`` of an INSERT with data doesn't hold the clause.
    """

    sql: bytes
    words: tuple[bytes, ...]
    insert: bool
    format: str | None
    data: int | None
    input: Input | None
    totals: bool

    @property
    def keyword(self) -> bytes:
        """The first word, in capitals; empty for an empty statement."""
        return self.words[0] if self.words else b""

    @property
    def selects(self) -> bool:
        """Whether it is a SELECT, in whatever dress: what may be streamed, and cancelled without a trace."""
        return self.keyword in _SELECTS and not self.insert

    @property
    def reads(self) -> bool:
        """Whether it only reads: a SELECT, or what shows or checks."""
        return self.selects or self.keyword in _SHOWS

    @property
    def writes(self) -> bool:
        """Whether it writes files, of data or of definitions."""
        return not self.reads and self.keyword not in _STEERS


def tokens(text: bytes) -> Iterator[Token]:
    """The words and marks of ``text``; spaces and comments are left out."""
    depth = place = 0
    last_tags: dict[bytes, int] | None = None
    while match := _TOKEN.match(text, place):
        place = match.end()
        if match.lastgroup == "open":
            place = _comment_end(text, place)
            continue
        kind = match.lastgroup or "other"
        if kind == "skip":
            continue
        if kind == "tag":
            last_tags = _tags(text) if last_tags is None else last_tags
            ends = last_tags[match.group()] >= place
            kind = "string" if ends else "other"
            place = text.index(match.group(), place) + len(match.group()) if ends else match.start() + 1
        word = text[match.start() : place]
        if kind == "other" and word in _CLOSING:
            depth -= 1
        yield Token(kind, word, word.upper() if kind == "word" else word, match.start(), place, depth)
        if kind == "other" and word in _OPENING:
            depth += 1


def _tags(text: bytes) -> dict[bytes, int]:
    """Where each heredoc's mark stands for the last time: one that doesn't come again opens nothing."""
    return {mark[1]: mark.start() for mark in re.finditer(rb"(?=(\$\w*+\$))", text)}


def _comment_end(text: bytes, place: int) -> int:
    """Where the comment ends whose inside begins at `place`; comments nest."""
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(text, place)):
        depth += 1 if mark.group() == b"/*" else -1
        place = mark.end()
    return len(text) if depth else place


def parse(text: bytes) -> Statement:
    """Read the statement at the head of ``text``, which may go on with inline data of an INSERT."""
    words: list[bytes] = []
    insert = totals = False
    read_format: str | None = None
    format_at = data = None
    call: Input | None = None
    previous: list[Token] = []  # the last three
    end = len(text)
    select = False
    for token in tokens(text):
        if len(words) < 3:
            words.append(token.upper)
        top = token.depth == 0 and token.kind == "word"
        last = previous[-1] if previous else None
        if top and token.upper == b"INSERT" and (last is None or words[0] == b"WITH") and not insert:
            insert = True
        elif top and insert and token.upper in {b"SELECT", b"WITH", b"FROM"}:
            select = True
        elif token.upper == b"TOTALS":
            totals = True
        if top and insert and not select and token.upper == b"VALUES" and last and last.upper != b"INTO":
            read_format, end, data = "Values", token.start, token.end
            break
        if last and last.depth == 0 and last.upper == b"FORMAT" and token.kind == "word" and token.depth == 0:
            read_format = token.text.decode()
            format_at = (last.start, token.end)
            if insert and (call is not None or not select):
                after = _AFTER_FORMAT.match(text, token.end)
                end, data = last.start, after.end() if after else token.end
                break
        if insert and token.text == b")" and len(previous) == 3 and previous[2].kind == "string":
            function, opening, structure = previous
            if function.upper == b"INPUT" and opening.text == b"(":
                call = Input(function.start, token.end, structure.text)
        previous = [*previous[-2:], token]
    sql = text[:end]
    if insert and data is None and format_at is not None:
        # INSERT … SELECT … FORMAT x: the engine takes no output format there.
        sql = text[: format_at[0]] + text[format_at[1] :]
    return Statement(sql, tuple(words), insert, read_format, data, call, totals)
