"""SQL of the measures that several dashboards show, so that one name means one formula."""

from dashboards.sql import RECENT_OF_VIEW, TIME, WHOLE_BUCKETS

ALL_TOKENS = "(sum(input_tokens) + sum(output_tokens))"
"""Input includes the cached, output the reasoning tokens: those are parts, never added."""

UTILIZATION = "(sum(utilization_ppm) / 1e6 / nullIf(sum(utilization_samples), 0))"
"""Mean of the devices, 0 to 1."""

ERROR_SHARE = "(sum(errors) / nullIf(sum(requests), 0))"

LINK_SHARE = (
    "(greatest(sum(a_to_z_bytes), sum(z_to_a_bytes)) * 8 / 60 / uniqExact(minute)"
    " / (sum(capacity_bits_per_second) / nullIf(sum(capacity_samples), 0)))"
)
"""Busier direction ÷ capacity, over the minutes that have samples."""


def watts(labels: str, where: str, time: str = WHOLE_BUCKETS) -> str:
    """Power over time: each meter's mean in the bucket, added up over the meters that were heard in it."""
    named = f"{labels}, " if labels else ""
    return f"""
SELECT time, {named}sum(meter_watts) AS value
FROM (
  SELECT {TIME}, {named}sum(milliwatts) / 1e3 / nullIf(sum(power_samples), 0) AS meter_watts
  FROM power_1m
  WHERE {time} AND {where}
  GROUP BY time, site, node, meter, role
)
WHERE isNotNull(meter_watts)
GROUP BY time{", " + labels if labels else ""}"""


def watts_now(role: str, where: str = "1") -> str:
    """(site, watts): each site's newest minute of the last quarter of an hour; a site that was silent has no row."""
    return f"""
SELECT site, argMax(site_watts, minute) AS watts
FROM (
  SELECT minute, site, sum(joules) / 60 AS site_watts
  FROM energy({RECENT_OF_VIEW})
  WHERE role = '{role}' AND {where}
  GROUP BY minute, site
)
GROUP BY site"""


def matched_energy(range_of_view: str, where: str = "1") -> str:
    """(minute, site, facility, it) in J, only where both are known: what an interim PUE may be made of."""
    return f"""
SELECT minute, site, facility, it
FROM (
  SELECT
    minute, site,
    sumOrNullIf(joules, role IN ('utility', 'generation')) AS facility, sumOrNullIf(joules, role = 'it') AS it
  FROM energy({range_of_view})
  WHERE role IN ('utility', 'generation', 'it') AND {where}
  GROUP BY minute, site
)
WHERE isNotNull(facility) AND it > 0"""


INTERIM_PUE = "(sum(facility) / nullIf(sum(it), 0))"
"""Over :func:`matched_energy`."""


def quantile(share: float, histogram: str) -> str:
    """A quantile in seconds out of a log histogram: bucket k holds 2^(k/4) to 2^((k+1)/4) microseconds.

    Within its bucket, 19 % wide, a value is taken as evenly spread on the logarithmic scale.
    """
    keys, counts = f"mapKeys(sumMap({histogram}))", f"mapValues(sumMap({histogram}))"
    upto = f"arrayCumSum({counts})"
    rank = f"{share} * arraySum({counts})"
    index = f"arrayFirstIndex(n -> n >= {rank}, {upto})"
    inside = f"({rank} - {upto}[{index}] + {counts}[{index}]) / {counts}[{index}]"
    return f"if(arraySum({counts}) > 0, exp2(({keys}[{index}] + {inside}) / 4) / 1e6, NULL)"
