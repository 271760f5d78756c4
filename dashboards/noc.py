"""Network overview, for the control room: what is wrong now, where, since when, and how complete is the picture."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards import measures, noc_queries
from dashboards.panels import COMPLETE, RISING, Panel, bars, board, heat_map, lines, number, places, rows, states
from dashboards.sql import (
    BUCKET,
    RECENT,
    RECENT_OF_VIEW,
    SECONDS,
    STEPS,
    TIME,
    UNTIL,
    WHOLE_STEPS,
    bucket_of,
    over_time,
)

SEVERITY = {"critical": ("critical", "red"), "warning": ("warning", "orange"), "notice": ("notice", "yellow")}
HEARD = {"heard": ("heard", "dark-green"), "partly": ("partly heard", "yellow"), "silent": ("silent", "red")}


def dashboard() -> Dashboard:
    """The network overview."""
    page = board(
        "wattstream-noc",
        "Network overview",
        "What is wrong now, where, since when, and how complete the picture is.",
    )
    for panel in (*_headline(), *_trouble(), *_detail(), *_pipeline()):
        page = page.with_panel(panel)
    return page


def _headline() -> list[Panel]:
    return [
        number(
            "Completeness",
            "Emitters heard ÷ expected over the last 15 minutes; heard means a sample within the emitter's own "
            "interval, maintenance is excused.",
            f"SELECT sum(heard) / sum(expected) AS completeness FROM completeness({RECENT_OF_VIEW}) "
            "HAVING sum(expected) > 0",
            "percentunit",
            size=(3, 4),
            steps=COMPLETE,
            decimals=1,
            background=True,
        ),
        number(
            "Power drawn",
            "Utility power of the sites that were heard, mean of the bucket; silent sites are missing, not zero.",
            over_time(measures.watts("", "role = 'utility'")),
            "watt",
            size=(3, 4),
            trend=True,
        ),
        number(
            "IT load",
            "Power of the role it, of the sites that were heard.",
            over_time(measures.watts("", "role = 'it'")),
            "watt",
            size=(3, 4),
            trend=True,
        ),
        number(
            "Interim PUE",
            "Facility energy ÷ IT energy of all sites over the range (ISO/IEC 30134-2, shorter than a year), over "
            "the minutes and sites where both are known. Hubs must stay below 1.25.",
            f"SELECT {measures.INTERIM_PUE} AS pue FROM site_energy_in_steps({STEPS}) HAVING pue > 0",
            "none",
            size=(3, 4),
            steps=[(None, "green"), (1.25, "orange"), (1.5, "red")],
            decimals=3,
        ),
        number(
            "Accelerators busy",
            "Mean utilization of all devices that were heard.",
            over_time(
                f"SELECT {TIME}, {measures.UTILIZATION} AS value "
                f"FROM ({measures.utilization_minutes('1')}) GROUP BY time"
            ),
            "percentunit",
            size=(3, 4),
            decimals=1,
            trend=True,
        ),
        number(
            "Tokens a second",
            "Input and output tokens by the time of the request, all gateways.",
            over_time(
                f"SELECT {TIME}, {measures.ALL_TOKENS} / {SECONDS} AS value "
                f"FROM region_tokens_in_steps({WHOLE_STEPS}) GROUP BY time"
            ),
            "short",
            size=(3, 4),
            trend=True,
        ),
        number(
            "Requests that fail",
            "Share of requests with an error type, last 15 minutes.",
            f"SELECT {measures.ERROR_SHARE} AS errors FROM tokens_1m WHERE {RECENT}",
            "percentunit",
            size=(3, 4),
            steps=[(None, "green"), (0.01, "yellow"), (0.03, "orange"), (0.05, "red")],
            decimals=2,
        ),
        number(
            "p95 duration",
            "95 % of requests took no longer, last 15 minutes; from log buckets 19 % wide.",
            f"SELECT {measures.quantile(0.95, 'duration_histogram')} AS p95 FROM tokens_1m WHERE {RECENT}",
            "s",
            size=(3, 4),
            steps=[(None, "green"), (30, "yellow"), (60, "red")],
            decimals=1,
        ),
    ]


def _trouble() -> list[Panel]:
    return [
        rows(
            "What is wrong now",
            "Silent or incomplete emitters, power and links near capacity, failing models, hot accelerators and dead "
            "letters of the last 15 minutes. Since is empty where it began more than 3 hours ago or has no start.",
            noc_queries.PROBLEMS,
            [
                ("severity", {"mapping": SEVERITY, "cell": "color-background", "width": 92}),
                ("place", {"width": 170}),
                ("what", {"width": 170}),
                ("since", {"unit": "dateTimeFromNow", "width": 120}),
            ],
            size=(14, 10),
            nothing="None of these checks found anything",
        ),
        places(
            "Map of sites",
            "Where the sites are, coloured by completeness of the last 15 minutes; size goes with power drawn. "
            "The board draws a plain grid of longitude and latitude, without an outline of land.",
            f"""
SELECT site, latitude, longitude, share AS value, watts AS weight FROM sites
LEFT JOIN (
  SELECT site, toNullable(sum(heard) / sum(expected)) AS share FROM completeness({RECENT_OF_VIEW}) GROUP BY site
) AS full USING (site)
LEFT JOIN (SELECT site, toNullable(watts) AS watts FROM ({measures.watts_now("utility")})) AS drawn USING (site)
ORDER BY site""",
            "percentunit",
            size=(10, 10),
            steps=COMPLETE,
        ),
        lines(
            "Power by site",
            "Utility power of the eight sites that draw most, mean of the bucket.",
            over_time(
                measures.watts(
                    "site",
                    "role = 'utility' AND site IN (SELECT site FROM power_1m WHERE "
                    f"{RECENT} AND role = 'utility' GROUP BY site ORDER BY sum(milliwatts) DESC, site LIMIT 8)",
                ),
                by="site",
            ),
            "watt",
            by="site",
            size=(12, 9),
            legend="table",
            calcs=("lastNotNull", "max"),
        ),
        lines(
            "Tokens by region",
            "Input and output tokens a second by region of demand.",
            over_time(
                f"SELECT {TIME}, region, {measures.ALL_TOKENS} / {SECONDS} AS value "
                f"FROM region_tokens_in_steps({WHOLE_STEPS}) GROUP BY time, region",
                by="region",
            ),
            "short",
            by="region",
            stack=True,
            size=(12, 9),
        ),
        _heard("Hub campuses heard", "hub", (12, 12)),
        _heard("Edge nodes heard", "edge", (12, 12)),
    ]


def _heard(title: str, kind: str, size: tuple[int, int]) -> Panel:
    return states(
        title,
        "Each site over time: all its emitters heard (98 % or more), some, or none.",
        f"""
SELECT time, site, state FROM (
  SELECT
    {TIME}, site,
    multiIf(sum(heard) = 0, 'silent', sum(heard) < 0.98 * sum(expected), 'partly', 'heard') AS state
  FROM completeness_in_steps({WHOLE_STEPS})
  WHERE site IN (SELECT site FROM sites WHERE kind = '{kind}')
  GROUP BY time, site
)
ORDER BY time, site""",
        HEARD,
        by="site",
        size=size,
    )


def _detail() -> list[Panel]:
    return [
        bars(
            "Power and capacity",
            "Utility power now ÷ capacity of the feed; sites that were not heard in the last 15 minutes are not here.",
            f"""
SELECT toString(site) AS site, watts / nullIf(utility_capacity_watts, 0) AS load
FROM ({measures.watts_now("utility")}) AS drawn
INNER JOIN sites USING (site)
ORDER BY load DESC
LIMIT 14""",
            "percentunit",
            size=(8, 10),
            steps=RISING,
            high=1,
            decimals=1,
        ),
        lines(
            "Duration of requests",
            "From request to last token, from log buckets 19 % wide.",
            over_time(
                f"SELECT {TIME}, {measures.quantile(0.5, 'duration_histogram')} AS p50, "
                f"{measures.quantile(0.95, 'duration_histogram')} AS p95, "
                f"{measures.quantile(0.99, 'duration_histogram')} AS p99 "
                f"FROM region_tokens_in_steps({WHOLE_STEPS}) GROUP BY time",
                "p50",
                "p95",
                "p99",
            ),
            "s",
            size=(16, 10),
        ),
        rows(
            "Sites",
            "Each site of the catalogue: power now and share of the feed, interim PUE of the range, utilization, "
            "tokens a second and completeness of the last 15 minutes.",
            noc_queries.SITES,
            [
                (
                    "site",
                    {
                        "width": 190,
                        "link": ("Campus power", "/d/wattstream-campus?var-site=${__value.raw}&${__url_time_range}"),
                    },
                ),
                ("kind", {"width": 70}),
                ("region", {"width": 110}),
                ("power", {"unit": "watt"}),
                ("capacity", {"unit": "watt"}),
                ("load", {"unit": "percentunit", "decimals": 1, "bar": 1, "steps": RISING}),
                ("pue", {"name": "interim PUE", "unit": "none", "decimals": 3}),
                ("accelerators", {"name": "accelerators busy", "unit": "percentunit", "decimals": 1}),
                ("tokens", {"name": "tokens/s", "unit": "short"}),
                (
                    "complete",
                    {"unit": "percentunit", "decimals": 1, "steps": COMPLETE, "cell": "color-text"},
                ),
                ("last_heard", {"name": "last heard", "unit": "dateTimeFromNow"}),
            ],
            size=(24, 12),
        ),
        heat_map(
            "Link utilization",
            "Busier direction ÷ capacity, of the 24 optical links with the highest share over the range.",
            over_time(
                f"SELECT {TIME}, link, {measures.LINK_SHARE} AS value "
                f"FROM ({measures.link_use(WHOLE_STEPS)}) WHERE link IN (SELECT link FROM "
                f"({measures.link_use(STEPS)}) GROUP BY link ORDER BY {measures.LINK_SHARE} DESC, link LIMIT 24) "
                "GROUP BY time, link",
                by="link",
            ),
            "percentunit",
            by="link",
            size=(24, 13),
            low=0,
            high=1,
        ),
    ]


def _pipeline() -> list[Panel]:
    done = f"done >= toStartOfInterval($__fromTime, {BUCKET}) AND done < toStartOfInterval($__toTime, {BUCKET})"
    lately = f"done >= $__toTime - INTERVAL 15 MINUTE AND done < {UNTIL}"
    return [
        number(
            "Newest event",
            "When the newest event that can be queried arrived at the broker.",
            "SELECT max(arrived) AS newest FROM ingest_ranges HAVING count() > 0",
            "dateTimeFromNow",
            size=(4, 8),
        ),
        number(
            "Ingest delay",
            "Longest wait from arrival at the broker to being queryable, last 15 minutes.",
            "SELECT max(dateDiff('millisecond', arrived, done)) / 1e3 AS delay "
            f"FROM ingest_ranges WHERE {lately} HAVING count() > 0",
            "s",
            size=(4, 8),
            steps=[(None, "green"), (10, "yellow"), (60, "red")],
            decimals=1,
        ),
        number(
            "Dead letters",
            "Events that could not be used and arrived in the range; 0 is a count, not a gap.",
            f"SELECT count() AS letters FROM deadletters WHERE arrived >= $__fromTime AND arrived < {UNTIL}",
            "locale",
            size=(4, 8),
            steps=[(None, "green"), (1, "orange"), (1000, "red")],
        ),
        lines(
            "Events written",
            "Events a second by topic, at the time their range was done.",
            over_time(
                f"SELECT {bucket_of('done')}, topic, sum(rows) / {SECONDS} AS value FROM ingest_ranges "
                f"WHERE {done} GROUP BY time, topic",
                by="topic",
            ),
            "short",
            by="topic",
            size=(12, 8),
        ),
        lines(
            "Ingest delay over time",
            "From arrival at the broker to being queryable: the longest of each bucket.",
            over_time(
                f"SELECT {bucket_of('done')}, topic, "
                "max(dateDiff('millisecond', arrived, done)) / 1e3 AS value "
                f"FROM ingest_ranges WHERE {done} GROUP BY time, topic",
                by="topic",
            ),
            "s",
            by="topic",
            size=(12, 8),
        ),
        rows(
            "Audit",
            "Differences that the audit found between ledger, raw tables and rollups in the range, newest first.",
            "SELECT found, topic, topic_partition AS partition, subject, expected, present, "
            "if(mended, 'mended', 'open') AS state, detail FROM audits "
            f"WHERE found >= $__fromTime AND found < {UNTIL} ORDER BY found DESC LIMIT 100",
            [
                ("found", {"unit": "dateTimeAsIso"}),
                ("state", {"mapping": {"mended": ("mended", "green"), "open": ("open", "red")}, "cell": "color-text"}),
            ],
            size=(12, 6),
            nothing="The audit found no difference in this range",
        ),
    ]
