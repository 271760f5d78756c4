"""The ClickHouse tables: which there are, and the migrations (clickhouse/*.sql) that make them."""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from schemas.steps import filled_in
from schemas.sums import named

ROLLUPS: dict[str, tuple[str, ...]] = {
    "power": ("power_1m",),
    "utilization": ("utilization_1m",),
    "tokens": ("tokens_1m", "usage_1m"),
    "links": ("links_1m",),
}
"""The one-minute rollups that the stream workers write, by event type; other types have none."""

HOURLY: dict[str, str] = {minute: minute.removesuffix("1m") + "1h" for tables in ROLLUPS.values() for minute in tables}
"""The hourly table of each one-minute rollup."""

COARSER: dict[str, tuple[str, str]] = {hours: (minutes, minutes) for minutes, hours in HOURLY.items()} | {
    "site_tokens_1h": ("tokens_1m", "tokens_1h"),
    "region_tokens_1h": ("tokens_1m", "tokens_1h"),
    "region_tokens_1d": ("tokens_1m", "region_tokens_1h"),
    "customer_usage_1d": ("usage_1m", "usage_1h"),
    "package_usage_1d": ("usage_1m", "usage_1h"),
}
"""Tables of a rollup's sums by the hour or the day, all keys of it or fewer: the rollup, and what each is made from."""

MEASURES: dict[str, tuple[str, ...]] = {
    "energy_1h": ("power_1m",),
    "site_energy_1h": ("power_1m",),
    "completeness_1h": ("power_1m", "utilization_1m", "links_1m"),
}
"""The hourly tables that are made from views by the minute, and the rollups whose samples those look at."""

CATALOG = {
    "sites": "sites",
    "regions": "regions",
    "fleet": "fleet",
    "accelerator_models": "accelerator_models",
    "accelerator_figures": "accelerator_figures",
    "gateway_models": "gateway_models",
    "optical_links": "links",
    "tenants": "tenants",
    "token_packages": "packages",
}
"""Reference tables by name, with the function of schemas.catalog that fills each."""


def expiry_of(engine_full: str) -> str | None:
    """When a row of a table expires, as SQL over its columns; None where it is kept for ever.

    ``engine_full`` is the table's, from system.tables: a retention is whatever its TTL says now.
    """
    found = re.search(r" TTL (.+?)(?: DELETE\b| SETTINGS\b|$)", engine_full)
    return found.group(1) if found else None


@dataclass(frozen=True)
class Migration:
    """One numbered SQL file, run once, statement by statement; each statement may be run again without harm.

    A file of nothing but views is run at every migration: a view holds no data and is whatever its file says now.
    """

    number: int
    name: str
    statements: tuple[str, ...]

    @property
    def views_only(self) -> bool:
        """Whether each statement makes or replaces a view."""
        return all(re.match(r"\s*(--[^\n]*\n\s*)*CREATE OR REPLACE VIEW\b", text) for text in self.statements)


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations in the order of their numbers."""
    folder = resources.files("schemas") / "clickhouse"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(
        Migration(int(file.name[:4]), file.name.removesuffix(".sql"), _statements(file.read_text())) for file in files
    )


def _statements(text: str) -> tuple[str, ...]:
    """Statements end with ``;`` at the end of a line; comment lines between them are dropped.

    ``{sums of TABLE}`` stands for the integer sums of a rollup, as SQL over its raw table; for the others see steps.py.
    """
    text = re.sub(r"\{sums of (\w+)\}", lambda found: named(found[1]), text)
    text = filled_in(text)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    parts = ("\n".join(lines) + "\n").split(";\n")
    return tuple(part.strip() for part in parts if part.strip())
