-- Six hours of a small national network, 2026-11-20 06:00 to 12:00 UTC, for tests and pictures of the dashboards; always
-- the same, from hashes. It has what a control room must see.

-- Meters: the sixth site is silent from 11:20, the third has a gap from 09:00 to 09:15, the eighth draws more than its feed,
-- the ninth lost its cooling meter at 10:10. Every second utility meter counts energy, the others only say power.
INSERT INTO power_1m (minute, site, node, meter, role, topic_partition, samples, power_samples, milliwatts, watts_min,
  watts_max, joules_first, joules_last, arrived_min, upto)
SELECT
  toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n AS minute, site, '' AS node, role || '-meter' AS meter, role, 0, 6, 6, toInt64(w * 6000), w * 0.99, w * 1.01,
  if(counts, (toDateTime64(minute, 9, 'UTC') + 5, floor(joules)), (toDateTime64('2262-01-01 00:00:00', 9, 'UTC'), 0.)),
  if(counts, (toDateTime64(minute, 9, 'UTC') + 55, floor(joules)), (toDateTime64(0, 9, 'UTC'), 0.)),
  toDateTime64(minute, 3, 'UTC') + 2, n
FROM (
  SELECT n, site, role, rank, w, role = 'utility' AND rank % 2 = 0 AS counts,
    sum(w * 60) OVER (PARTITION BY site, role ORDER BY n) AS joules
  FROM (
    SELECT n, site, role, rank,
      capacity * (0.52 + 0.1 * sin((n + 120) / 1440 * 6.2832) + 0.04 * (sipHash64(site, n) % 1000 / 1000) + if(rank = 8, 0.38, 0)) AS it_and_more,
      multiIf(role = 'utility', it_and_more, role = 'it', it_and_more / pue_target, it_and_more * (1 - 1 / pue_target) * 0.8) AS w
    FROM (SELECT arrayJoin(range(360)) AS n) AS grid CROSS JOIN (SELECT site, utility_capacity_watts AS capacity, pue_target, rowNumberInAllBlocks() + 1 AS rank FROM (SELECT * FROM sites ORDER BY kind DESC, site)) AS s ARRAY JOIN ['utility', 'it', 'cooling'] AS role
  )
)
WHERE NOT (rank = 6 AND n >= 320) AND NOT (rank = 3 AND n BETWEEN 180 AND 194) AND NOT (rank = 9 AND role = 'cooling' AND n >= 250);

-- Four accelerators of each model at each site; one device a model of the fourth site gets hot at 11:00.
INSERT INTO utilization_1m (minute, site, node, device, vendor, model, topic_partition, samples, device_samples,
  utilization_samples, utilization_ppm, memory_samples, memory_used_bytes, memory_limit_bytes, power_samples, milliwatts,
  temperature_samples, millicelsius, utilization_min, utilization_max, watts_min, watts_max, temperature_celsius_min,
  temperature_celsius_max, arrived_min, upto)
SELECT toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, site, node || '-' || model, device, vendor, model, 0, 2, 2, 2, toInt64(2e6 * u), 2,
  toInt64(2 * u * memory * 0.9), 2 * memory, 2, toInt64(2000 * w), 2, toInt64(2000 * t), u * 0.95, least(1, u * 1.05),
  w * 0.9, w * 1.1, t - 1, t + 1, toDateTime64(toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, 3, 'UTC') + 2, n
FROM (
  SELECT n, site, node, device, vendor, model, rank, ifNull(memory, 64000000000) AS memory,
    least(0.99, 0.5 + 0.22 * sin((n + 120) / 1440 * 6.2832) + 0.25 * (sipHash64(model, device, intDiv(n, 7)) % 1000 / 1000)) AS u,
    90 + 320 * u AS w, 38 + 38 * u + if(rank = 4 AND device = 'npu2' AND n > 300, 24, 0) AS t
  FROM (SELECT arrayJoin(range(360)) AS n) AS grid CROSS JOIN 
(SELECT f.site AS site, f.model AS model, f.vendor AS vendor, s.rank AS rank, m.memory_bytes AS memory,
  'node-1' AS node, 'npu' || toString(arrayJoin(range(4))) AS device
FROM fleet AS f INNER JOIN (SELECT site, utility_capacity_watts AS capacity, pue_target, rowNumberInAllBlocks() + 1 AS rank FROM (SELECT * FROM sites ORDER BY kind DESC, site)) AS s ON s.site = f.site INNER JOIN accelerator_models AS m ON m.model = f.model) AS d
)
WHERE NOT (rank = 6 AND n >= 320) AND NOT (rank = 3 AND n BETWEEN 180 AND 194);

-- Links; the first one is near its capacity.
INSERT INTO links_1m (minute, link, a_site, z_site, topic_partition, samples, a_to_z_bytes, z_to_a_bytes, errors,
  capacity_samples, capacity_bits_per_second, latency_samples, latency_nanoseconds, rx_power_samples, rx_power_millidbm,
  latency_seconds_min, latency_seconds_max, rx_power_dbm_min, rx_power_dbm_max, arrived_min, upto)
SELECT toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, link, a_site, z_site, 0, 1, toInt64(c / 8 * 60 * share), toInt64(c / 8 * 60 * share * 0.6), 0, 1, c, 1,
  toInt64(latency * 1e9), 1, -3500, latency, latency, -3.5, -3.5, toDateTime64(toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, 3, 'UTC') + 2, n
FROM (
  SELECT n, link, a_site, z_site, capacity_bits_per_second AS c, latency_seconds AS latency,
    least(0.98, 0.1 + 0.5 * (sipHash64(link) % 1000 / 1000) + 0.2 * sin((n + 120) / 1440 * 6.2832) + 0.06 * (sipHash64(link, n) % 1000 / 1000)
      + if(link = (SELECT min(link) FROM optical_links), 0.6, 0)) AS share
  FROM (SELECT arrayJoin(range(360)) AS n) AS grid CROSS JOIN optical_links
);

-- Tokens by region and model; the sixth model fails from 11:35 on.
INSERT INTO tokens_1m (minute, site, region, gateway, provider, model, topic_partition, samples, requests, errors,
  input_tokens, output_tokens, cache_read_tokens, duration_samples, duration_microseconds, first_token_samples,
  first_token_microseconds, duration_histogram, first_token_histogram, arrived_min, upto)
SELECT toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, site, region, 'gateway-1', provider, model, 0, q, q, if(number = 5 AND n >= 335, toInt64(q * 0.12), toInt64(q * 0.003)),
  q * 1900, q * 420, q * 700, q, q * 6200000, q, q * 380000, mapFromArrays(arrayMap(k -> toInt16(k + 82), range(20)), arrayMap(k -> toInt64(1 + q * exp(-pow(k - 9, 2) / 14.)), range(20))), mapFromArrays(arrayMap(k -> toInt16(k + 66), range(20)), arrayMap(k -> toInt64(1 + q * exp(-pow(k - 9, 2) / 14.)), range(20))),
  toDateTime64(toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, 3, 'UTC') + 2, n
FROM (
  SELECT n, r.region AS region, m.model AS model, m.provider AS provider, m.number AS number,
    ['zhongwei-1', 'guian-1', 'zhangjiakou-1', 'qingpu-1'][1 + sipHash64(r.region) % 4] AS site,
    toInt64(20 + 900 * r.demand_share * (1.2 + sin((n + 120) / 1440 * 6.2832) + 0.3 * (sipHash64(r.region, m.model, n) % 1000 / 1000))) AS q
  FROM (SELECT arrayJoin(range(360)) AS n) AS grid CROSS JOIN regions AS r CROSS JOIN (SELECT model, provider, rowNumberInAllBlocks() AS number FROM (SELECT * FROM gateway_models ORDER BY demand_weight DESC, model LIMIT 6)) AS m
);

-- The same by customer: small packages are used up.
INSERT INTO usage_1m (minute, tenant, package, model, topic_partition, samples, requests, input_tokens, output_tokens,
  cache_read_tokens, arrived_min, upto)
SELECT toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, tenant, package, model, 0, q, q, toInt64(q * 1900 * weight), toInt64(q * 420 * weight), q * 700,
  toDateTime64(toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, 3, 'UTC') + 2, n
FROM (
  SELECT n, p.package AS package, p.tenant AS tenant, m.model AS model, 1 + p.tokens / 4e9 AS weight,
    toInt64(2 + 10 * (sipHash64(p.package, m.model, n) % 1000 / 1000)) AS q
  FROM (SELECT arrayJoin(range(360)) AS n) AS grid
  CROSS JOIN (SELECT * FROM token_packages ORDER BY package LIMIT 24) AS p CROSS JOIN (SELECT model, provider, rowNumberInAllBlocks() AS number FROM (SELECT * FROM gateway_models ORDER BY demand_weight DESC, model LIMIT 6)) AS m
  WHERE n % 3 = 0
);

-- Packages.
INSERT INTO packages (time, source, id, package, tenant, entry, tokens, priority, effective, expiry, arrived,
  topic_partition, offset, place, identity)
SELECT '2026-11-20 06:00:00', 'billing', package, package, tenant, 'granted', tokens, priority, '2026-11-20 06:00:00',
  toDateTime64('2026-11-20 12:00:00', 9, 'UTC') + validity_seconds, '2026-11-20 06:00:00', 0, 0, 0, unhex(hex(MD5(package)))
FROM token_packages ORDER BY package LIMIT 24;

-- What the ledger says of it.
INSERT INTO ingest_ranges (topic, topic_id, topic_partition, first, last, messages, events, rows, duplicates, rejects,
  checksum, epoch, owner, arrived, done)
SELECT 'wattstream.' || topic || '.v1', 'id', p, n * 100, n * 100 + 99, 100, 6000 + size, 6000 + size, 0, 0, 0, 1,
  generateUUIDv4(), toDateTime64(toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, 3, 'UTC') + 30, toDateTime64(toDateTime('2026-11-20 06:00:00', 'UTC') + 60 * n, 3, 'UTC') + 31 + sipHash64(topic, n) % 1500 / 1000
FROM (SELECT arrayJoin(range(360)) AS n) AS grid ARRAY JOIN ['power', 'utilization', 'tokens', 'links'] AS topic, [900, 4000, 2500, 100] AS size
ARRAY JOIN [0, 1] AS p;

-- Dead letters in the last quarter of an hour.
INSERT INTO deadletters (topic, topic_partition, offset, place, arrived, reason, detail, content_type, key, payload)
SELECT 'wattstream.power.v1', 0, number, 0, toDateTime64('2026-11-20 12:00:00', 3, 'UTC') - 20 * number - 5,
  'hw.power is not a finite number', '', 'application/json', 'zhongwei-1', '{}'
FROM numbers(37);

-- Who is expected; a spare meter is in maintenance.
INSERT INTO emitters (topic, site, node, emitter, interval_seconds, since, until, registered)
SELECT 'power', site, '', role || '-meter', 60, '2026-01-01 00:00:00', '2106-02-07 00:00:00', '2026-01-01 00:00:00'
FROM (SELECT site, utility_capacity_watts AS capacity, pue_target, rowNumberInAllBlocks() + 1 AS rank FROM (SELECT * FROM sites ORDER BY kind DESC, site)) ARRAY JOIN ['utility', 'it', 'cooling'] AS role;

INSERT INTO emitters (topic, site, node, emitter, interval_seconds, since, until, registered)
SELECT 'utilization', site, node || '-' || model, device, 60, '2026-01-01 00:00:00', '2106-02-07 00:00:00', '2026-01-01 00:00:00'
FROM 
(SELECT f.site AS site, f.model AS model, f.vendor AS vendor, s.rank AS rank, m.memory_bytes AS memory,
  'node-1' AS node, 'npu' || toString(arrayJoin(range(4))) AS device
FROM fleet AS f INNER JOIN (SELECT site, utility_capacity_watts AS capacity, pue_target, rowNumberInAllBlocks() + 1 AS rank FROM (SELECT * FROM sites ORDER BY kind DESC, site)) AS s ON s.site = f.site INNER JOIN accelerator_models AS m ON m.model = f.model);

INSERT INTO emitters (topic, site, node, emitter, interval_seconds, since, until, registered)
SELECT 'links', a_site, '', link, 60, '2026-01-01 00:00:00', '2106-02-07 00:00:00', '2026-01-01 00:00:00'
FROM optical_links;

INSERT INTO emitters (topic, site, node, emitter, interval_seconds, since, until, maintenance, registered)
SELECT 'power', min(site), '', 'spare-meter', 60, '2026-01-01 00:00:00', '2106-02-07 00:00:00', true, '2026-01-01 00:00:00'
FROM sites;

-- The day of the Azure trace, in three minutes: what its import sums to.
INSERT INTO tokens_1m (minute, site, region, gateway, provider, model, topic_partition, samples, requests, errors,
  input_tokens, output_tokens, arrived_min, upto)
SELECT toDateTime('2023-11-16 18:17:00', 'UTC') + 600 * number, '', '', 'azure', '', 'code', 0,
  [2000, 6000, 819][number + 1] AS requests, requests, 0,
  [4000000, 13000000, 1059974][number + 1],
  [50000, 190000, 5896][number + 1], '2026-11-20 06:00:00', number
FROM numbers(3);
