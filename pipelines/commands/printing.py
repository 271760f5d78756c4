"""How commands answer: text for people, one JSON document for machines."""

import json
from typing import Any

import typer
from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """One document."""
    # Not through rich, which would wrap at the terminal's width.
    typer.echo(json.dumps(document, indent=2, default=str))


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """What a command found, by name."""
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        if value is not None and value != {}:
            typer.echo(f"{name.replace('_', ' '):<24}{_plain(value)}")


def _plain(value: object) -> str:
    if isinstance(value, dict):
        if any(isinstance(item, dict) for item in value.values()):
            return f"\n{'':<24}".join(f"{key:<28}{_plain(item)}" for key, item in value.items())
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"\n{'':<24}".join(map(_plain, value)) or "none"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
