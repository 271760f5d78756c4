"""SQL of the measures that several dashboards show, so that one name means one formula."""

from dashboards.sql import BUCKET, FINE, RECENT_OF_VIEW, TIME, WHOLE_BUCKETS, WHOLE_STEPS

ALL_TOKENS = "(sum(input_tokens) + sum(output_tokens))"
"""Input includes the cached, output the reasoning tokens: those are parts, never added."""

UTILIZATION = "(sum(utilization_ppm) / 1e6 / nullIf(sum(utilization_samples), 0))"
"""Mean of the devices, 0 to 1."""

ERROR_SHARE = "(sum(errors) / nullIf(sum(requests), 0))"


def watts(labels: str, where: str) -> str:
    """Power over time: each meter's mean in the bucket, added up over the meters that were heard in it.

    Out of the view energy, so that a meter that reports every quarter of an hour has a power in each minute of it.
    """
    named = f"{labels}, " if labels else ""
    return f"""
SELECT time, {named}sum(meter_watts) AS value
FROM (
  SELECT {TIME}, {named}sum(joules) / sum(seconds) AS meter_watts
  FROM energy_in_steps({WHOLE_STEPS})
  WHERE {where}
  GROUP BY time, site, node, meter, role
)
GROUP BY time{", " + labels if labels else ""}"""


def utilization_minutes(where: str) -> str:
    """The accelerators' rollup, each sample in every minute of its emitter's interval, as it was registered then.

    In buckets of an hour or more every sample is where it was told: no emitter's interval is longer.
    """
    sums = (
        "device_samples, samples, utilization_ppm, utilization_samples, memory_used_bytes, memory_limit_bytes, "
        "milliwatts, power_samples, millicelsius, temperature_samples"
    )
    return f"""
SELECT toDateTime(arrayJoin(covered), 'UTC') AS minute, site, node, device, vendor, model, {sums}
FROM (
  SELECT
    sampled.site AS site, sampled.node AS node, device, vendor, model, {sums},
    range(toUInt32(began), toUInt32(began) + greatest(interval_seconds, 60), 60) AS covered
  FROM (
    SELECT minute AS began, site, node, toString(device) AS device, vendor, model, {sums}
    FROM utilization_1m
    WHERE {FINE} AND minute >= toStartOfInterval($__fromTime, {BUCKET}) - INTERVAL 1 HOUR
      AND minute < $__toTime AND {where}
  ) AS sampled
  ASOF LEFT JOIN (
    SELECT
      site, node, emitter, toStartOfMinute(since) AS valid_from,
      argMax(interval_seconds, registered) AS interval_seconds
    FROM emitters
    WHERE topic = 'utilization'
    GROUP BY site, node, emitter, valid_from
  ) AS known
    ON sampled.site = known.site AND sampled.node = known.node AND sampled.device = known.emitter
    AND sampled.began >= known.valid_from
)
WHERE {WHOLE_BUCKETS}
UNION ALL
SELECT minute, site, node, toString(device) AS device, vendor, model, {sums}
FROM utilization_in_steps({WHOLE_STEPS})
WHERE NOT ({FINE}) AND {where}"""


def link_use(steps: str, fine: str = FINE) -> str:
    """(minute, link, bits, seconds, capacity): what the busier direction carried since the sample before.

    A sample stands for its emitter's interval, as it was registered then; what nobody registered stands for all of its
    minute or, with a step of an hour or more, its hour. Where an interval changes, samples of both are in one sum: such
    a minute is left out, and of an hour those of the interval before are as many as fit until then. ``fine``: whether
    the steps are minutes.
    """
    return f"""
SELECT
  began AS minute, toString(link) AS link, bits, capacity,
  known.valid_from >= began AND before != interval_seconds AS changed,
  if(changed, least(sampled.samples, intDiv(known.begun - began, greatest(before, 1)) + 1), 0) AS of_before,
  if(interval_seconds = 0, if({fine}, 60, 3600),
    of_before * before + (sampled.samples - of_before) * interval_seconds) AS seconds
FROM (
  SELECT
    if({fine}, l.minute, toStartOfHour(l.minute)) AS began, began + if({fine}, 59, 3599) AS upto, link,
    sum(l.samples) AS samples, greatest(sum(a_to_z_bytes), sum(z_to_a_bytes)) * 8 AS bits,
    sum(capacity_bits_per_second) / nullIf(sum(capacity_samples), 0) AS capacity
  FROM links_in_steps({steps}) AS l
  GROUP BY began, link
) AS sampled
ASOF LEFT JOIN (
  SELECT
    emitter, valid_from, begun, interval_seconds,
    lagInFrame(interval_seconds, 1, interval_seconds) OVER (PARTITION BY emitter ORDER BY valid_from) AS before
  FROM (
    SELECT
      emitter, toStartOfMinute(since) AS valid_from, argMax(since, registered) AS begun,
      argMax(interval_seconds, registered) AS interval_seconds
    FROM emitters
    WHERE topic = 'links'
    GROUP BY emitter, valid_from
  )
) AS known ON sampled.link = known.emitter AND sampled.upto >= known.valid_from
WHERE NOT ({fine} AND changed)"""


LINK_SHARE = "(sum(bits) / sum(seconds) / avg(capacity))"
"""Busier direction ÷ capacity, over :func:`link_use`."""


def watts_now(role: str, where: str = "1") -> str:
    """(site, watts): each site's newest minute of the last quarter of an hour; a site that was silent has no row."""
    return f"""
SELECT site, argMax(site_watts, minute) AS watts
FROM (
  SELECT minute, site, sum(joules / seconds) AS site_watts
  FROM energy({RECENT_OF_VIEW})
  WHERE role = '{role}' AND {where}
  GROUP BY minute, site
)
GROUP BY site"""


INTERIM_PUE = "(sum(matched_facility_joules) / nullIf(sum(matched_it_joules), 0))"
"""Over site_energy_in_steps: only minutes and sites count in which both are known."""


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
