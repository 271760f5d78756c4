"""The two long queries of the network overview: what is wrong, and all sites at a glance."""

from dashboards import measures
from dashboards.sql import RECENT, RECENT_IN_STEPS, RECENT_OF_VIEW, STEPS, STEPS_TOUCHED, UNTIL

PROBLEMS = f"""
WITH recent AS (
  SELECT site, topic, minute, expected, heard
  FROM completeness(start = toStartOfMinute($__toTime) - INTERVAL 3 HOUR, stop = toStartOfMinute($__toTime))
)
SELECT severity, place, what, since, detail FROM (
  SELECT
    if(argMax(heard, minute) = 0, 'critical', 'warning') AS severity,
    toString(site) AS place,
    if(argMax(heard, minute) = 0, topic || ' silent', topic || ' incomplete') AS what,
    if(countIf(heard = expected) = 0, NULL, maxIf(minute, heard = expected) + INTERVAL 1 MINUTE) AS since,
    concat(argMax(heard, minute), ' of ', argMax(expected, minute), ' emitters heard') AS detail
  FROM recent
  GROUP BY site, topic
  HAVING argMax(heard, minute) < argMax(expected, minute)
  UNION ALL
  SELECT
    if(share > 1, 'critical', 'warning'), site, 'power near capacity', NULL,
    concat(toString(round(share * 100, 1)), ' % of the utility feed')
  FROM (
    SELECT site, watts / nullIf(utility_capacity_watts, 0) AS share
    FROM ({measures.watts_now("utility")}) AS drawn INNER JOIN sites USING (site)
  )
  WHERE share > 0.95
  UNION ALL
  SELECT
    if(share > 0.2, 'critical', 'warning'), model, 'requests fail', first,
    concat(toString(round(share * 100, 1)), ' % of ', toString(asked), ' requests')
  FROM (
    SELECT
      toString(model) AS model, {measures.ERROR_SHARE} AS share, sum(requests) AS asked,
      minIf(minute, errors > 0) AS first
    FROM tokens_1m WHERE {RECENT} GROUP BY model
  )
  WHERE share > 0.05 AND asked >= 20
  UNION ALL
  SELECT
    if(share > 0.97, 'critical', 'warning'), link, 'link near capacity', NULL,
    concat(toString(round(share * 100, 1)), ' % in the busier direction')
  FROM (
    SELECT link, {measures.LINK_SHARE} AS share
    FROM ({measures.link_use(RECENT_IN_STEPS, "1")}) GROUP BY link
  )
  WHERE share > 0.9
  UNION ALL
  SELECT 'warning', topic, 'dead letters', first, concat(toString(letters), ' × ', reason)
  FROM (
    SELECT toString(topic) AS topic, toString(reason) AS reason, count() AS letters, min(arrived) AS first
    FROM deadletters
    WHERE arrived >= $__toTime - INTERVAL 15 MINUTE AND arrived < {UNTIL}
    GROUP BY topic, reason
  )
  UNION ALL
  SELECT 'warning', place, 'accelerators hot', NULL, concat(toString(devices), ' devices above 90 °C')
  FROM (
    SELECT toString(site) AS place, uniqExact(node, device) AS devices
    FROM utilization_1m WHERE {RECENT} AND temperature_celsius_max > 90 GROUP BY site
  )
)
ORDER BY indexOf(['critical', 'warning', 'notice'], severity), since, place
LIMIT 200"""
"""severity, place, what, since, detail: a row for each finding, the worst first."""

SITES = f"""
SELECT
  site, kind, region,
  now.watts AS power, sited.capacity_watts AS capacity, now.watts / sited.capacity_watts AS load,
  ratio.pue AS pue, busy.share AS accelerators, served.rate AS tokens, full.share AS complete,
  last.heard AS last_heard
FROM site_capacity(stop = $__toTime) AS sited
LEFT JOIN (SELECT site, toNullable(watts) AS watts FROM ({measures.watts_now("utility")})) AS now USING (site)
LEFT JOIN (
  SELECT site, {measures.INTERIM_PUE} AS pue FROM site_energy_in_steps({STEPS}) GROUP BY site
) AS ratio USING (site)
LEFT JOIN (
  SELECT site, {measures.UTILIZATION} AS share FROM utilization_in_steps({STEPS}) GROUP BY site
) AS busy USING (site)
LEFT JOIN (
  SELECT site, toNullable{measures.ALL_TOKENS} / 900 AS rate FROM tokens_1m WHERE {RECENT} GROUP BY site
) AS served USING (site)
LEFT JOIN (
  SELECT site, toNullable(sum(heard) / sum(expected)) AS share FROM completeness({RECENT_OF_VIEW}) GROUP BY site
) AS full USING (site)
LEFT JOIN (
  SELECT site, toNullable(max(minute)) AS heard FROM power_in_steps({STEPS_TOUCHED}) GROUP BY site
) AS last USING (site)
ORDER BY kind DESC, power DESC NULLS LAST, site"""
"""One row a site of the catalogue; what was not heard is null."""
