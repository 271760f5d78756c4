"""Campus power: what comes in, where it goes, and how far the figures can be trusted."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards import measures
from dashboards.panels import COMPLETE, RISING, Panel, board, choice, dial, lines, number, rows, words
from dashboards.sql import (
    RECENT_OF_VIEW,
    SECONDS_OF_STEPS,
    STEPS,
    STEPS_OF_CHOICE,
    STEPS_TOUCHED,
    TIME,
    TO_HOURS,
    WHOLE_STEPS,
    only,
    over_time,
)

SITE = only("site")
ENERGY_WH = "sum(joules) / 3600"

ROLES = """**Which roles may be added up.** `utility` and `generation` are what comes in; `it` and `cooling` are where
it goes. `rack`, `chassis`, `node`, `psu` and `cpu` lie inside one another: each is a line of its own, never added up.
A meter that is silent is missing, not zero: look at completeness before you read a fall as a saving."""


def dashboard() -> Dashboard:
    """The power of campuses and edge nodes."""
    page = board(
        "wattstream-campus",
        "Campus power",
        "Power and energy by role and site, interim PUE, and what is left of the utility feed.",
        start="now-6h",
        refresh="30s",
    ).with_variable(
        choice(
            "site",
            "Site",
            "SELECT toString(site) AS site FROM sites UNION DISTINCT "
            f"SELECT toString(site) FROM power_in_steps({STEPS_OF_CHOICE}) ORDER BY site",
            "Campuses and edge nodes of the catalogue, and what else was heard in the range.",
        )
    )
    for panel in (*_headline(), *_over_time(), *_tables()):
        page = page.with_panel(panel)
    return page


def _power(title: str, role: str, words_of_it: str) -> Panel:
    return number(
        title,
        words_of_it,
        over_time(measures.watts("", f"role = '{role}' AND {SITE}")),
        "watt",
        size=(4, 4),
        trend=True,
    )


def _headline() -> list[Panel]:
    return [
        _power("Utility", "utility", "Power from the utility feed, mean of the last whole bucket, of the sites heard."),
        _power("IT", "it", "Power of the IT equipment, mean of the last whole bucket, of the sites heard."),
        _power("Cooling", "cooling", "Power of the cooling, mean of the last whole bucket, of the sites heard."),
        number(
            "Energy drawn",
            "Energy of the role utility over the range: counter differences where the meter counts, else power held "
            f"for the emitter's interval; never across a gap. {TO_HOURS}",
            f"SELECT {ENERGY_WH} AS energy FROM energy_in_steps({STEPS}) WHERE role = 'utility' AND {SITE} "
            "HAVING count() > 0",
            "watth",
            size=(4, 4),
        ),
        number(
            "Interim PUE",
            "Facility energy ÷ IT energy over the minutes of the range in which both are known (ISO/IEC 30134-2, "
            "shorter than a year).",
            f"SELECT {measures.INTERIM_PUE} AS pue FROM site_energy_in_steps({STEPS}) WHERE {SITE} HAVING pue > 0",
            "none",
            size=(4, 4),
            steps=[(None, "green"), (1.25, "orange"), (1.5, "red")],
            decimals=3,
        ),
        number(
            "Meters heard",
            "Meters heard ÷ expected over the last 15 minutes, maintenance excused.",
            f"SELECT sum(heard) / sum(expected) AS completeness FROM completeness({RECENT_OF_VIEW}) "
            f"WHERE topic = 'power' AND {SITE} HAVING sum(expected) > 0",
            "percentunit",
            size=(4, 4),
            steps=COMPLETE,
            decimals=1,
            background=True,
        ),
    ]


def _over_time() -> list[Panel]:
    return [
        lines(
            "Power by role",
            "Mean power of the bucket, added up over the meters of one role; roles lie inside one another and are not "
            "added to each other.",
            over_time(measures.watts("role", SITE), by="role"),
            "watt",
            by="role",
            size=(16, 10),
            legend="table",
            calcs=("lastNotNull", "mean", "max"),
        ),
        dial(
            "Peak of the feed",
            "Highest minute of utility power of the range ÷ capacity of the feeds, of the sites that were heard.",
            "SELECT sum(peak_watts) / sum(capacity_watts) AS share "
            f"FROM site_headroom_in_steps({STEPS}) WHERE isNotNull(peak_watts) AND {SITE} HAVING count() > 0",
            size=(8, 10),
        ),
        lines(
            "Interim PUE by site",
            "Facility energy ÷ IT energy of each bucket, over the minutes in which both are known; the ten sites with "
            "most IT energy. The line is 1.25, which national hubs must stay below.",
            over_time(
                f"""
SELECT {TIME}, site, {measures.INTERIM_PUE} AS value
FROM site_energy_in_steps({WHOLE_STEPS})
WHERE {SITE} AND site IN (
  SELECT site FROM power_in_steps({STEPS}) WHERE role = 'it' AND {SITE}
  GROUP BY site ORDER BY sum(milliwatts) DESC, site LIMIT 10
)
GROUP BY time, site""",
                by="site",
            ),
            "none",
            by="site",
            size=(12, 10),
            low=1,
            steps=[(None, "green"), (1.25, "orange")],
        ),
        lines(
            "Utility power by site",
            "Mean power of the bucket; the ten sites that draw most.",
            over_time(
                measures.watts(
                    "site",
                    f"role = 'utility' AND {SITE} AND site IN (SELECT site FROM power_in_steps({STEPS}) "
                    f"WHERE role = 'utility' AND {SITE} GROUP BY site ORDER BY sum(milliwatts) DESC, site LIMIT 10)",
                ),
                by="site",
            ),
            "watt",
            by="site",
            size=(12, 10),
        ),
        words("About roles", ROLES, size=(24, 4)),
    ]


def _tables() -> list[Panel]:
    return [
        rows(
            "Energy of the range",
            "By site and role: energy, how it was found (counter: counter differences; power: mean power held for the "
            "emitter's interval), and for how much of the range each meter has any, in the mean.",
            f"""
SELECT
  site, role, count() AS meters, {ENERGY_WH} AS energy,
  arrayStringConcat(arraySort(groupUniqArrayArray(methods)), ' + ') AS method,
  sum(seconds) / count() / {SECONDS_OF_STEPS} AS covered
FROM (
  SELECT
    site, role, sum(e.joules) AS joules, sum(e.seconds) AS seconds, groupUniqArray(e.method) AS methods
  FROM energy_in_steps({STEPS}) AS e
  WHERE {SITE}
  GROUP BY site, node, meter, role
)
GROUP BY site, role
ORDER BY energy DESC, site, role
LIMIT 500""",
            [
                ("energy", {"unit": "watth"}),
                (
                    "covered",
                    {
                        "name": "of the range",
                        "unit": "percentunit",
                        "decimals": 1,
                        "steps": COMPLETE,
                        "cell": "color-text",
                    },
                ),
            ],
            size=(12, 11),
        ),
        rows(
            "Headroom",
            "Utility capacity less the highest minute of the range; empty where the site was not heard.",
            f"""
SELECT site, kind, capacity_watts AS capacity, peak_watts AS peak, headroom_watts AS headroom, peak_share AS share
FROM site_headroom_in_steps({STEPS})
WHERE {SITE}
ORDER BY share DESC NULLS LAST, site""",
            [
                ("capacity", {"unit": "watt"}),
                ("peak", {"unit": "watt"}),
                ("headroom", {"unit": "watt"}),
                ("share", {"name": "peak ÷ capacity", "unit": "percentunit", "decimals": 1, "bar": 1, "steps": RISING}),
            ],
            size=(12, 11),
        ),
        rows(
            "Meters",
            "Every meter of the range: mean, lowest and highest power, highest temperature, when last heard.",
            f"""
SELECT
  site, node, meter, role,
  sum(milliwatts) / 1e3 / nullIf(sum(power_samples), 0) AS mean, min(watts_min) AS lowest, max(watts_max) AS highest,
  max(temperature_celsius_max) AS temperature, sum(samples) AS readings, max(minute) AS last_heard
FROM power_in_steps({STEPS_TOUCHED})
WHERE {SITE}
GROUP BY site, node, meter, role
ORDER BY site, node, role, meter
LIMIT 1000""",
            [
                ("mean", {"unit": "watt"}),
                ("lowest", {"unit": "watt"}),
                ("highest", {"unit": "watt"}),
                ("temperature", {"unit": "celsius", "decimals": 1}),
                ("readings", {"unit": "locale"}),
                ("last_heard", {"name": "last heard", "unit": "dateTimeAsIso"}),
            ],
            size=(24, 11),
        ),
    ]
