"""The event types: what each field means, in which unit, and when an event is impossible.

A field has two names. ``attribute`` is what travels (OpenTelemetry's name where there is one), ``column`` is what it is
called in every frame and table. An event type knows its topic, its key (what all events of one message share, so that
one identity always lands in one partition) and its identity (what makes two messages the same event).

A topic has versions, since its partitions are fixed: more of them are a new version, filled with the messages of the
one before. The events in it stay what they are, and so does what they say of themselves (``type``).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Literal

import polars as pl
import pyarrow as pa

from schemas.errors import UsageError

Kind = Literal["time", "text", "integer", "real"]

MAX_AHEAD = timedelta(minutes=5)
"""An event whose time is further ahead of its arrival than this is impossible."""

UNIT_SEPARATOR = "\x1f"
"""Joins the parts of an identity; refused inside a part, so that no two identities read the same."""

_ARROW: dict[Kind, pa.DataType] = {
    "time": pa.timestamp("ns", tz="UTC"),
    "text": pa.string(),
    "integer": pa.int64(),
    "real": pa.float64(),
}
_POLARS: dict[Kind, pl.DataType] = {
    "time": pl.Datetime("ns", "UTC"),
    "text": pl.String(),
    "integer": pl.Int64(),
    "real": pl.Float64(),
}


@dataclass(frozen=True)
class Field:
    """One field of an event: ``low`` and ``high`` are inclusive; text is never null, empty only where not required."""

    column: str
    attribute: str
    kind: Kind
    unit: str
    doc: str
    required: bool = False
    low: float | None = None
    high: float | None = None
    default: int | None = None

    @property
    def arrow(self) -> pa.DataType:
        """Its type on the wire."""
        return _ARROW[self.kind]

    @property
    def polars(self) -> pl.DataType:
        """Its type in a frame."""
        return _POLARS[self.kind]


@dataclass(frozen=True)
class EventType:
    """One kind of event; its ``name`` is also the name of its raw table."""

    name: str
    doc: str
    key: str
    identity: tuple[str, ...]
    fields: tuple[Field, ...]
    any_of: tuple[str, ...] = ()
    part_of: tuple[tuple[str, str], ...] = ()
    products: tuple[tuple[str, str, float], ...] = ()
    """A count, what each of them has, and the most that both may be together: what is more would not fit Int64."""
    version: int = 1
    """Of the topic; which one is in use, Kafka tells (versions.py)."""

    @property
    def topic(self) -> str:
        """The Kafka topic."""
        return f"wattstream.{self.name}.v{self.version}"

    @property
    def type(self) -> str:
        """The CloudEvents type of its events: it is of their schema, and the same in every version of the topic."""
        return f"wattstream.{self.name}.v1"

    def at(self, version: int) -> "EventType":
        """The same in that version of the topic."""
        return self if version == self.version else replace(self, version=version)

    @cached_property
    def columns(self) -> dict[str, Field]:
        """The fields by column name."""
        return {field.column: field for field in self.fields}

    @cached_property
    def payload(self) -> tuple[Field, ...]:
        """The fields inside CloudEvents' ``data``: all but the context attributes."""
        return tuple(field for field in self.fields if field.attribute not in CONTEXT)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The wire schema of an Arrow batch, by attribute."""
        return pa.schema([pa.field(field.attribute, field.arrow) for field in self.fields])

    @cached_property
    def frame_schema(self) -> pl.Schema:
        """The schema of a frame of such events, by column."""
        return pl.Schema({field.column: field.polars for field in self.fields})

    @cached_property
    def impossible(self) -> tuple[tuple[str, pl.Expr], ...]:
        """What no such event can be, with the reason: each expression is true for a row to refuse.

        The frame must also carry ``arrived`` (the broker's clock), which alone says what is in the future.
        """
        rules: list[tuple[str, pl.Expr]] = []
        for field in self.fields:
            rules.extend(_rules(field))
        for column in self.identity:
            if self.columns[column].kind == "text":
                reason = f"{self.columns[column].attribute} contains a control character"
                rules.append((reason, pl.col(column).str.contains(UNIT_SEPARATOR, literal=True)))
        if self.any_of:
            names = ", ".join(self.columns[column].attribute for column in self.any_of)
            rules.append((f"has none of {names}", pl.all_horizontal(pl.col(c).is_null() for c in self.any_of)))
        for part, whole in self.part_of:
            reason = f"{self.columns[part].attribute} exceeds {self.columns[whole].attribute}, which includes it"
            rules.append((reason, pl.col(part) > pl.col(whole)))
        for count, each, most in self.products:
            reason = f"{self.columns[count].attribute} times {self.columns[each].attribute} is above {most:g}"
            rules.append((reason, pl.col(count).cast(pl.Float64) * pl.col(each) > most))
        ahead = (pl.col("time") - pl.col("arrived").cast(pl.Datetime("ns", "UTC"))) > MAX_AHEAD
        rules.append((f"time is more than {MAX_AHEAD.seconds} s ahead of its arrival", ahead))
        # The rollups' minutes begin with 1970: an insert of an earlier one would fail for ever.
        rules.append(("time is before 1970", pl.col("time").to_physical() < 0))
        return tuple(rules)


def _rules(field: Field) -> list[tuple[str, pl.Expr]]:
    value = pl.col(field.column)
    rules: list[tuple[str, pl.Expr]] = []
    if field.required:
        missing = value.is_null() | (value == "") if field.kind == "text" else value.is_null()
        rules.append((f"{field.attribute} is missing", missing))
    if field.kind == "real":
        rules.append((f"{field.attribute} is not a finite number", ~value.is_finite()))
    if field.low is not None:
        rules.append((f"{field.attribute} is below {field.low:g}", value < field.low))
    if field.high is not None:
        rules.append((f"{field.attribute} is above {field.high:g}", value > field.high))
    return rules


CONTEXT = ("time", "source", "id")
"""CloudEvents context attributes that become columns; ``specversion`` and ``type`` are checked and dropped."""

# Bounds keep a minute's integer sums inside Int64: 10^12 W in mW is 10^15, ten thousand of them still fit.
_WATTS = 1e12
_TOKENS = 1e15


def _text(column: str, attribute: str, doc: str, *, required: bool = False) -> Field:
    return Field(column, attribute, "text", "", doc, required=required)


def _count(
    column: str,
    attribute: str,
    unit: str,
    doc: str,
    *,
    required: bool = False,
    low: float = 0,
    high: float = _TOKENS,
    default: int | None = None,
) -> Field:
    return Field(column, attribute, "integer", unit, doc, required=required, low=low, high=high, default=default)


def _real(column: str, attribute: str, unit: str, doc: str, low: float, high: float) -> Field:
    return Field(column, attribute, "real", unit, doc, low=low, high=high)


_TIME = Field(
    "time", "time", "time", "UTC", "When it happened (event time), to the nanosecond where known.", required=True
)
_SOURCE = _text("source", "source", "Who emitted it: a collector, a gateway, a trace (CloudEvents source).")
_SOURCE_REQUIRED = _text("source", "source", "Who emitted it (CloudEvents source).", required=True)
_ID = _text("id", "id", "Unique within its source (CloudEvents id).", required=True)
_SITE = _text("site", "site", "The campus or edge node.", required=True)
_NODE = _text("node", "node", "The server; empty for a meter of the site itself.")
_TEMPERATURE = _real("temperature_celsius", "hw.temperature", "Cel", "Temperature.", -273.15, 10_000)

POWER = EventType(
    name="power",
    doc="A meter reading: all that one meter says at one time.",
    key="site",
    identity=("site", "node", "meter", "time"),
    fields=(
        _TIME,
        _SOURCE,
        _SITE,
        _NODE,
        _text("meter", "meter", "The meter, unique within its site and node.", required=True),
        _text(
            "role",
            "role",
            "What it measures: utility, generation, it, cooling, rack, chassis, node, psu, cpu, …",
            required=True,
        ),
        _real("watts", "hw.power", "W", "Active power; negative where a feed exports.", -_WATTS, _WATTS),
        _real("joules", "hw.energy", "J", "Energy counter, monotonic until it resets.", 0, 1e18),
        _TEMPERATURE,
    ),
    any_of=("watts", "joules", "temperature_celsius"),
)

UTILIZATION = EventType(
    name="utilization",
    doc="An accelerator sample, or a mean over several devices that the source doesn't tell apart.",
    key="site",
    identity=("site", "node", "device", "time"),
    fields=(
        _TIME,
        _SOURCE,
        _SITE,
        _NODE,
        _text("device", "device", "The accelerator within its node.", required=True),
        _text("vendor", "hw.vendor", "Who made it."),
        _text("model", "hw.model", "Its model, as in the catalogue where it is there."),
        _count(
            "devices",
            "devices",
            "1",
            "How many devices the sample stands for; totals weigh by it.",
            low=1,
            high=1e6,
            default=1,
        ),
        _real("utilization", "hw.gpu.utilization", "1", "Share of time busy, 0 to 1, mean per device.", 0, 1),
        _count("memory_used_bytes", "hw.gpu.memory.usage", "By", "Memory in use, mean per device."),
        _count("memory_limit_bytes", "hw.gpu.memory.limit", "By", "Memory there is, per device."),
        _TEMPERATURE,
        _real("watts", "hw.power", "W", "Power, mean per device.", 0, 1e6),
    ),
    any_of=("utilization", "memory_used_bytes", "temperature_celsius", "watts"),
    products=(("devices", "memory_used_bytes", 9e17), ("devices", "memory_limit_bytes", 9e17)),
)

TOKENS = EventType(
    name="tokens",
    doc="A finished gateway request, or usage of several that the source has aggregated.",
    key="source",
    identity=("source", "id"),
    fields=(
        _TIME,
        _SOURCE_REQUIRED,
        _ID,
        _text("gateway", "gateway", "The API gateway.", required=True),
        _text("region", "region", "Where the demand came from."),
        _text("site", "site", "Which site served it."),
        _text("tenant", "tenant", "The customer."),
        _text("package", "package", "The token package that pays."),
        _text("provider", "gen_ai.provider.name", "The model's provider."),
        _text("model", "gen_ai.request.model", "The model asked for."),
        _count("requests", "requests", "{request}", "How many requests it stands for.", low=1, high=1e12, default=1),
        _count(
            "input_tokens",
            "gen_ai.usage.input_tokens",
            "{token}",
            "Prompt tokens, cached ones included; null = unknown.",
        ),
        _count(
            "output_tokens",
            "gen_ai.usage.output_tokens",
            "{token}",
            "Generated tokens, reasoning included; null = unknown.",
        ),
        _count(
            "cache_read_tokens",
            "gen_ai.usage.cache_read.input_tokens",
            "{token}",
            "Part of the input read from a cache; null = unknown.",
        ),
        _count(
            "cache_creation_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "{token}",
            "Part of the input written to a cache; null = unknown.",
        ),
        _count(
            "reasoning_tokens",
            "gen_ai.usage.reasoning.output_tokens",
            "{token}",
            "Part of the output spent on reasoning; null = unknown.",
        ),
        _real(
            "duration_seconds", "duration", "s", "From request to last token; of several requests their mean.", 0, 1e7
        ),
        _real(
            "first_token_seconds",
            "time_to_first_token",
            "s",
            "From request to first token; of several requests their mean.",
            0,
            1e7,
        ),
        _text("error_type", "error.type", "Why it failed; empty for success."),
    ),
    part_of=(
        ("cache_read_tokens", "input_tokens"),
        ("cache_creation_tokens", "input_tokens"),
        ("reasoning_tokens", "output_tokens"),
    ),
    products=(("requests", "duration_seconds", 9e11), ("requests", "first_token_seconds", 9e11)),
)

PACKAGES = EventType(
    name="packages",
    doc="A ledger entry of a token package.",
    key="package",
    identity=("source", "id"),
    fields=(
        _TIME,
        _SOURCE_REQUIRED,
        _ID,
        _text("package", "package", "The token package.", required=True),
        _text("tenant", "tenant", "Who owns it."),
        _text("entry", "entry", "granted, topped_up, voided or expired.", required=True),
        _count(
            "tokens", "tokens", "{token}", "How many tokens, never negative: the entry says which way.", required=True
        ),
        _count("priority", "priority", "1", "Lower burns first.", low=-(2**31), high=2**31, default=0),
        Field("effective", "effective_time", "time", "UTC", "From when it counts.", required=True),
        Field("expiry", "expiry_time", "time", "UTC", "Until when; null = never ends."),
    ),
)

RATES = EventType(
    name="rates",
    doc="A conversion rate: how many package tokens one model token costs.",
    key="model",
    identity=("source", "id"),
    fields=(
        _TIME,
        _SOURCE_REQUIRED,
        _ID,
        _text("model", "gen_ai.request.model", "The model.", required=True),
        _text(
            "token_type", "gen_ai.token.type", "input, output, cache_read, cache_creation or reasoning.", required=True
        ),
        _count(
            "micro_tokens",
            "micro_tokens",
            "u{token}",
            "Package tokens for a model token, in millionths.",
            required=True,
        ),
        Field("effective", "effective_time", "time", "UTC", "From when it counts.", required=True),
    ),
)

CAPACITY = EventType(
    name="capacity",
    doc="A dated step of a site's capacity.",
    key="site",
    identity=("source", "id"),
    fields=(
        _TIME,
        _SOURCE_REQUIRED,
        _ID,
        _SITE,
        _text("resource", "resource", "utility_feed (W), accelerators ({device}) or link (bit/s).", required=True),
        _text("subject", "subject", "The accelerator model or the link; empty for the feed."),
        _count("amount", "amount", "by resource", "The capacity from then on.", required=True, high=1e18),
        _count("allocated", "allocated", "by resource", "How much of it is promised; null = unknown.", high=1e18),
        _text("status", "status", "planned or actual.", required=True),
        Field("effective", "effective_time", "time", "UTC", "From when it counts.", required=True),
    ),
)

LINKS = EventType(
    name="links",
    doc="An optical link sample; bytes and errors are those since the last sample (delta temporality).",
    key="link",
    identity=("link", "time"),
    fields=(
        _TIME,
        _SOURCE,
        _text("link", "link", "The link.", required=True),
        _text("a_site", "a_site", "One end.", required=True),
        _text("z_site", "z_site", "The other end.", required=True),
        _count("a_to_z_bytes", "hw.network.io.a_to_z", "By", "Bytes from a to z.", high=1e17),
        _count("z_to_a_bytes", "hw.network.io.z_to_a", "By", "Bytes from z to a.", high=1e17),
        _count(
            "capacity_bits_per_second", "hw.network.bandwidth.limit", "bit/s", "What it can carry each way.", high=1e17
        ),
        _real("latency_seconds", "latency", "s", "One way.", 0, 3600),
        _real("rx_power_dbm", "rx_power", "dBm", "Received optical power.", -200, 100),
        _count("errors", "hw.errors", "{error}", "Errored frames."),
    ),
    any_of=("a_to_z_bytes", "z_to_a_bytes", "latency_seconds", "rx_power_dbm", "errors"),
)

EVENT_TYPES = (POWER, UTILIZATION, TOKENS, PACKAGES, RATES, CAPACITY, LINKS)
BY_NAME = {event_type.name: event_type for event_type in EVENT_TYPES}
BY_TOPIC = {event_type.topic: event_type for event_type in EVENT_TYPES}

DEADLETTERS_TOPIC = "wattstream.deadletters.v1"
ALERTS_TOPIC = "wattstream.alerts.v1"
OUTPUT_TOPICS = (DEADLETTERS_TOPIC, ALERTS_TOPIC)


def name_of(topic: str) -> str:
    """The event type's name in that of its topic, whatever the version."""
    return topic.split(".")[1]


def topic_named(name: str, topics: Iterable[str] = tuple(BY_TOPIC)) -> str:
    """The topic of that name among these, of which each has one version; `tokens` is wattstream.tokens.v1.

    :raises UsageError: naming those that there are.
    """
    short = {name_of(topic): topic for topic in topics}
    found = re.fullmatch(r"wattstream\.(\w+)\.v\d+", name, re.ASCII)
    if topic := short.get(found[1] if found else name):
        return topic
    raise UsageError(f"There is no topic {name!r}: it is one of {', '.join(short)} (or wattstream.NAME.v1).")
