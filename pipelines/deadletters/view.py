"""Dead letters as people read them. What they hold came from outside: nothing of it steers the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from pipelines.deadletters.letters import Group, Letter, Position
from pipelines.deadletters.retry import NotRetryable, Report, message_of

_HEX_BYTES = 4096
_UNCUT = 2000
# A letter's position and times leave so much less than the terminal's width; a third of that is for the reason, the
# rest for the detail. Reasons are whole in the summary, since `retry --reason` wants them so.
_BESIDE_REASON = 65
_REASON_WIDTHS = 12, 48


def printable(text: str) -> str:
    """The text on one line, with what is no visible character spelled as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def letters_text(groups: Sequence[Group], newest: Sequence[Letter], width: int | None) -> str:
    """The groups, and below the newest, reason and detail cut to ``width`` characters; whole without one."""
    console = Console(width=width or _UNCUT, highlight=False)
    with console.capture() as printed:
        console.print(_tables(groups, newest, console.width))
    return "\n".join(line.rstrip() for line in printed.get().splitlines())


def _tables(groups: Sequence[Group], newest: Sequence[Letter], width: int) -> RenderableType:
    total = sum(group.count for group in groups)
    if not total:
        return Text("No dead letters.")
    summary = _table("TOPIC", "REASON", "COUNT", "RETRIED", "FIRST ARRIVAL", "LAST ARRIVAL")
    summary.columns[1].no_wrap, summary.columns[1].overflow = False, "fold"
    for column in summary.columns[2:4]:
        column.justify = "right"
    for group in groups:
        reason = Text(printable(group.reason))
        times = f"{group.first:%Y-%m-%d %H:%M}", f"{group.last:%Y-%m-%d %H:%M}"
        summary.add_row(group.topic, reason, f"{group.count:,}", f"{group.retried:,}", *times)
    if not newest:
        return summary
    table = _table("POSITION", "ARRIVED", "RETRIED", "REASON")
    table.add_column("DETAIL", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    for letter in newest:
        retried = "yes" if letter.retried else ""
        reason = _reason(letter.reason, (width - _BESIDE_REASON) // 3)
        detail = Text(printable(letter.detail))
        table.add_row(str(letter.position), f"{letter.arrived:%Y-%m-%d %H:%M:%S}", retried, reason, detail)
    told = f"The newest {len(newest):,} of {total:,}" if len(newest) < total else f"All {total:,}, the newest first"
    return Lines(summary, Text(), Text(f"{told}; times are UTC.", style="dim"), table)


def letter_report(letter: Letter) -> dict[str, str]:
    """All of one but its payload, by what it is."""
    try:
        message_of(letter)
        possible = f"wattstream deadletters retry {letter.position}"
    except NotRetryable as refused:
        possible = f"not possible: {refused}"
    return {
        "position": str(letter.position),
        "arrived": letter.arrived.isoformat(),
        "reason": printable(letter.reason),
        "detail": printable(letter.detail),
        "content_type": printable(letter.content_type) or "none: read as its first bytes say",
        "key": printable(letter.key.decode(errors="backslashreplace")) or "none",
        "bytes": f"{len(letter.payload):,}",
        "retried": f"{letter.retried.isoformat()} as {_new(letter)}" if letter.retried else "no",
        "retry": possible,
    }


def payload_text(payload: bytes) -> str:
    """The payload: indented where it is JSON, else a dump of its first bytes."""
    if not payload:
        return "(empty)"
    try:
        indented = json.dumps(json.loads(payload.decode()), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return _dump(payload)
    return "\n".join(map(printable, indented.split("\n")))


def letter_json(letter: Letter, *, whole: bool = False) -> dict[str, Any]:
    """One as `--json` prints it, with ``whole`` its payload too; bytes that are no UTF-8 are escaped as \\xNN."""
    document: dict[str, Any] = {
        "position": str(letter.position),
        **letter.position._asdict(),
        "arrived": letter.arrived.isoformat(),
        "reason": letter.reason,
        "detail": letter.detail,
        "content_type": letter.content_type or None,
        "key": letter.key.decode(errors="backslashreplace"),
        "retried": letter.retried.isoformat() if letter.retried else None,
        "retried_as": _new(letter) if letter.retried else None,
    }
    if whole:
        document["bytes"] = len(letter.payload)
        document["payload"] = letter.payload.decode(errors="backslashreplace")
        try:
            message_of(letter)
            document["not_retryable"] = None
        except NotRetryable as refused:
            document["not_retryable"] = str(refused)
    return document


def list_json(groups: Sequence[Group], newest: Sequence[Letter]) -> dict[str, Any]:
    """The groups and the newest as `--json` prints them."""
    by_group = [asdict(g) | {"first": g.first.isoformat(), "last": g.last.isoformat()} for g in groups]
    return {"groups": by_group, "newest": [letter_json(letter) for letter in newest]}


def retry_json(report: Report) -> dict[str, Any]:
    """What a retry did, as `--json` prints it."""
    return asdict(report) | {"since": report.since and report.since.isoformat(timespec="milliseconds")}


def retry_report(report: Report) -> list[str]:
    """What a retry did, line by line, and how to see what came of it."""
    if not report.selected + report.sent_before:
        return ["There are no such dead letters: wattstream deadletters list shows those there are."]
    verb = "would be sent again" if report.dry_run else "sent again"
    lines = [f"{_letters(report.sent)} {verb}."]
    if report.sent_before:
        lines.append(f"{_letters(report.sent_before)} left out: sent before (--again sends them once more).")
    for refused in report.not_retryable:
        more = ", …" if refused.count > len(refused.first) else ""
        lines.append(
            f"{_letters(refused.count)} can't be sent again: {refused.why} ({', '.join(refused.first)}{more})."
        )
    if report.since is not None:
        since = report.since.replace(tzinfo=None).isoformat(timespec="milliseconds")
        lines.append(
            f"What fails again is a new dead letter at a new position: wattstream deadletters list --since {since}"
        )
    return lines


def _letters(count: int) -> str:
    return f"{count:,} dead letter" + ("" if count == 1 else "s")


def _new(letter: Letter) -> str:
    topic, partition, _, _ = letter.position
    return str(Position(topic, partition, letter.new_offset or 0, 0))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap="ARRIV" not in column)
    return table


def _reason(reason: str, room: int) -> Text:
    text = Text(printable(reason))
    shortest, longest = _REASON_WIDTHS
    text.truncate(min(max(room, shortest), longest), overflow="ellipsis")
    return text


def _dump(payload: bytes) -> str:
    """Offset, bytes in hexadecimal and as ASCII, sixteen a line."""
    lines: list[str] = []
    for start in range(0, min(len(payload), _HEX_BYTES), 16):
        row = payload[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<47}  {text}")
    if len(payload) > _HEX_BYTES:
        lines.append(f"… {len(payload) - _HEX_BYTES:,} bytes more: --raw writes them all")
    return "\n".join(lines)
