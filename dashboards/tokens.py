"""Tokens and packages: what the gateways served, how fast, to whom, and what is left of the packages."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards import measures
from dashboards.panels import Panel, bars, board, choice, heat_map, lines, number, rows
from dashboards.sql import (
    HOURS,
    SECONDS,
    SECONDS_OF_STEPS,
    STEPS,
    STEPS_OF_CHOICE,
    TIME,
    TO_HOURS,
    WHOLE_STEPS,
    only,
    over_time,
)

SERVED = f"{only('model')} AND {only('region')}"
USED = f"{only('model')} AND {only('tenant')}"


def dashboard() -> Dashboard:
    """Token operations."""
    page = (
        board(
            "wattstream-tokens",
            "Tokens and packages",
            "Tokens, requests and latencies by model, region and tenant; token packages granted, used and left.",
        )
        .with_variable(_choice("model", "Model", "region_tokens_in_steps", "Models asked for in the range."))
        .with_variable(
            _choice("region", "Region", "region_tokens_in_steps", "Where the demand of the range came from.")
        )
        .with_variable(
            _choice(
                "tenant",
                "Tenant",
                "customer_usage_in_steps",
                "Customers of the range: for the panels by tenant and package.",
            )
        )
    )
    for panel in (*_totals(), *_over_time(), *_latency(), *_customers()):
        page = page.with_panel(panel)
    return page


def _choice(name: str, label: str, view: str, description: str):  # noqa: ANN202 - the SDK's builder
    return choice(
        name,
        label,
        f"SELECT DISTINCT toString({name}) AS {name} FROM {view}({STEPS_OF_CHOICE}) WHERE {name} != '' ORDER BY {name}",
        description,
    )


def _total(title: str, column: str, description: str) -> Panel:
    return number(
        title,
        f"{description} {TO_HOURS}",
        f"SELECT sum({column}) AS {column} FROM region_tokens_in_steps({STEPS}) WHERE {SERVED} HAVING count() > 0",
        "locale",
        size=(5, 4),
    )


def _rate(expression: str, by: str = "", *, top: int = 0) -> str:
    """A second, over time; with ``top`` only the largest of the label."""
    named = f"{by}, " if by else ""
    largest = (
        f" AND {by} IN (SELECT {by} FROM region_tokens_in_steps({STEPS}) WHERE {SERVED} GROUP BY {by} "
        f"ORDER BY {measures.ALL_TOKENS} DESC, {by} LIMIT {top})"
        if top
        else ""
    )
    return over_time(
        f"SELECT {TIME}, {named}({expression}) / {SECONDS} AS value "
        f"FROM region_tokens_in_steps({WHOLE_STEPS}) WHERE {SERVED}{largest} GROUP BY time{', ' + by if by else ''}",
        by=by,
    )


def _totals() -> list[Panel]:
    return [
        _total("Input tokens", "input_tokens", "Prompt tokens of the range, cached ones included, where known."),
        _total("Output tokens", "output_tokens", "Generated tokens of the range, reasoning included, where known."),
        _total("Requests", "requests", "Requests of the range."),
        number(
            "Tokens a second",
            "Input and output tokens, mean of the last whole bucket.",
            _rate(measures.ALL_TOKENS),
            "short",
            size=(3, 4),
            trend=True,
        ),
        number(
            "Requests that fail",
            "Share of the range's requests with an error type.",
            f"SELECT {measures.ERROR_SHARE} AS errors FROM region_tokens_in_steps({STEPS}) WHERE {SERVED}",
            "percentunit",
            size=(3, 4),
            steps=[(None, "green"), (0.01, "yellow"), (0.03, "orange"), (0.05, "red")],
            decimals=2,
        ),
        number(
            "Uncounted requests",
            "Requests of the range whose input or output tokens the source did not say; their tokens are missing here.",
            f"SELECT sum(unknown_requests) AS unknown FROM region_tokens_in_steps({STEPS}) "
            f"WHERE {SERVED} HAVING count() > 0",
            "locale",
            size=(3, 4),
            steps=[(None, "green"), (1, "yellow")],
        ),
    ]


def _over_time() -> list[Panel]:
    return [
        lines(
            "Tokens",
            "Input and output tokens a second; cached tokens are a part of the input.",
            over_time(
                f"SELECT {TIME}, sum(input_tokens) / {SECONDS} AS input, "
                f"sum(output_tokens) / {SECONDS} AS output, sum(cache_read_tokens) / {SECONDS} AS cached "
                f"FROM region_tokens_in_steps({WHOLE_STEPS}) WHERE {SERVED} GROUP BY time",
                "input",
                "output",
                "cached",
            ),
            "short",
            size=(12, 9),
            calcs=("lastNotNull", "mean", "max"),
            legend="table",
        ),
        lines(
            "Tokens by model",
            "Input and output tokens a second of the ten models with most.",
            _rate(measures.ALL_TOKENS, "model", top=10),
            "short",
            by="model",
            stack=True,
            size=(12, 9),
            calcs=("lastNotNull", "max"),
            legend="table",
        ),
        lines(
            "Tokens by region",
            "Input and output tokens a second by region of demand.",
            _rate(measures.ALL_TOKENS, "region"),
            "short",
            by="region",
            stack=True,
            size=(12, 9),
        ),
        lines(
            "Requests a second",
            "Requests a second, and those that failed.",
            over_time(
                f"SELECT {TIME}, sum(requests) / {SECONDS} AS requests, sum(errors) / {SECONDS} AS failed "
                f"FROM region_tokens_in_steps({WHOLE_STEPS}) WHERE {SERVED} GROUP BY time",
                "requests",
                "failed",
            ),
            "reqps",
            size=(12, 9),
        ),
    ]


def _quantiles(histogram: str) -> str:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    columns = ", ".join(f"{measures.quantile(share, histogram)} AS {name}" for name, share in shares.items())
    return over_time(
        f"SELECT {TIME}, {columns} FROM region_tokens_in_steps({WHOLE_STEPS}) WHERE {SERVED} GROUP BY time", *shares
    )


def _latency() -> list[Panel]:
    return [
        lines(
            "Time to first token",
            "Quantiles out of log buckets 19 % wide.",
            _quantiles("first_token_histogram"),
            "s",
            size=(8, 9),
        ),
        lines(
            "Duration",
            "From request to last token; quantiles out of log buckets 19 % wide.",
            _quantiles("duration_histogram"),
            "s",
            size=(8, 9),
        ),
        heat_map(
            "Durations",
            "Requests by duration: each row is twice as long as the one below, in seconds from its lower end.",
            over_time(
                f"""
SELECT time, toString(exp2(octave) / 1e6) AS seconds, sum(amount) AS value
FROM (
  SELECT {TIME}, intDiv(bucket, 4) AS octave, amount
  FROM region_tokens_in_steps({WHOLE_STEPS})
  ARRAY JOIN mapKeys(duration_histogram) AS bucket, mapValues(duration_histogram) AS amount
  WHERE {SERVED}
)
GROUP BY time, seconds""",
                by="seconds",
            ),
            "short",
            by="seconds",
            rows_unit="s",
            size=(8, 9),
        ),
    ]


def _customers() -> list[Panel]:
    return [
        rows(
            "Packages",
            "Granted, used and left, every token at rate 1. Runs out: what is left ÷ the use of this range a second. "
            "Conversion rates and the order of burning down are not applied here.",
            f"""
SELECT
  package, tenant, granted_tokens AS granted, used_tokens AS used, left_tokens AS left_over, used_share AS share,
  greatest(left_over, 0) / nullIf(rate.a_second, 0) AS runs_out, expiry
FROM package_balances
LEFT JOIN (
  SELECT package, {measures.ALL_TOKENS} / {SECONDS_OF_STEPS} AS a_second
  FROM package_usage_in_steps({STEPS}) GROUP BY package
) AS rate USING (package)
WHERE {only("tenant")}
ORDER BY share DESC NULLS LAST, package
LIMIT 1000""",
            [
                ("granted", {"name": "granted tokens", "unit": "short"}),
                ("used", {"name": "used tokens", "unit": "short"}),
                (
                    "left_over",
                    {
                        "name": "left tokens",
                        "unit": "short",
                        "steps": [(None, "red"), (0, "text")],
                        "cell": "color-text",
                    },
                ),
                (
                    "share",
                    {
                        "name": "used ÷ granted",
                        "unit": "percentunit",
                        "decimals": 1,
                        "bar": 1,
                        "steps": [(None, "green"), (0.8, "yellow"), (0.95, "red")],
                    },
                ),
                ("runs_out", {"name": "runs out in", "unit": "s"}),
                ("expiry", {"name": "expires", "unit": "dateTimeAsIso"}),
            ],
            size=(24, 11),
        ),
        rows(
            "Tenants",
            "Customers of the range by tokens used; requests that name no tenant are a row of their own. Last used: to "
            "the minute, hour or day, whichever the range is read by.",
            f"""
SELECT
  if(tenant = '', '(no tenant)', tenant) AS customer,
  sum(requests) AS requests, sum(input_tokens) AS input, sum(output_tokens) AS output,
  uniqExact(cityHash64(model)) AS models, max(minute) AS last_used
FROM customer_usage_in_steps({STEPS})
WHERE {USED}
GROUP BY tenant
ORDER BY input + output DESC, tenant
LIMIT 200""",
            [
                ("customer", {"name": "tenant"}),
                ("requests", {"unit": "locale"}),
                ("input", {"name": "input tokens", "unit": "locale"}),
                ("output", {"name": "output tokens", "unit": "locale"}),
                ("last_used", {"name": "last used", "unit": "dateTimeAsIso"}),
            ],
            size=(12, 11),
        ),
        bars(
            "Tokens for a kWh",
            "Input and output tokens for a kWh of measured IT energy, by serving site, hours of the range in which "
            "both are known.",
            f"""
SELECT site, sum(served.tokens) * 3.6e6 / sum(drawn.joules) AS tokens
FROM (
  SELECT toStartOfHour(minute) AS hour, site, {measures.ALL_TOKENS} AS tokens
  FROM site_tokens_in_steps({HOURS}) WHERE site != '' GROUP BY hour, site
) AS served
INNER JOIN (
  SELECT toStartOfHour(minute) AS hour, site, sum(it_joules) AS joules
  FROM site_energy_in_steps({HOURS}) GROUP BY hour, site HAVING joules > 0
) AS drawn USING (hour, site)
GROUP BY site
ORDER BY tokens DESC, site
LIMIT 14""",
            "short",
            size=(12, 11),
        ),
    ]
