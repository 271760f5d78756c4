-- The one-minute rollups as they were known at a time: added up from the raw rows that had arrived in the log by then.
-- A row is what a reader of the rollup gets by GROUP BY on all of its keys, in the same columns but upto; so a query of
-- the rollup becomes one of the past by its FROM alone. The integer sums are those of schemas/sums.py, which the audit
-- and verify hold the rollups against, and are filled in where a line says so; the rest is rollup.py's in SQL.
--
-- Where raw rows of these minutes have expired, the answer would be too small without a sign of it: the view refuses. It
-- counts what is rolled up, and only then what raw still has: a flush writes raw first, so that while one lands there is
-- more of raw, never less.

CREATE OR REPLACE VIEW power_1m_known AS
SELECT
    toStartOfMinute(time) AS minute,
    site, node, meter, role, topic_partition,
    {sums of power_1m},
    min(watts) AS watts_min,
    max(watts) AS watts_max,
    min(temperature_celsius) AS temperature_celsius_min,
    max(temperature_celsius) AS temperature_celsius_max,
    min(if(isNull(joules), (fromUnixTimestamp64Nano(9223372036854775807, 'UTC'), 0.), (time, assumeNotNull(joules)))) AS joules_first,
    max(if(isNull(joules), (fromUnixTimestamp64Nano(0, 'UTC'), 0.), (time, assumeNotNull(joules)))) AS joules_last,
    min(arrived) AS arrived_min
FROM power
WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')} AND arrived <= {known:DateTime64(3, 'UTC')}
    AND (
        SELECT throwIf(
            (SELECT sum(samples) FROM power_1m WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')})
            > (SELECT count() FROM power WHERE toStartOfMinute(time) >= {start:DateTime('UTC')} AND toStartOfMinute(time) < {stop:DateTime('UTC')}),
            'Raw rows of these minutes have expired, and what was known of them with them. Ask for later minutes, or power_1m for what is known now.')
    ) = 0
GROUP BY minute, site, node, meter, role, topic_partition
SETTINGS prefer_column_name_to_alias = 1
COMMENT 'power_1m as known at a time: of the minutes from start to stop, what had arrived in the log by known (arrived <= known; the tables showed it a flush later). Columns as in power_1m read with GROUP BY, without upto. Refuses minutes of which raw rows have expired.';

CREATE OR REPLACE VIEW utilization_1m_known AS
SELECT
    toStartOfMinute(time) AS minute,
    site, node, device, vendor, model, topic_partition,
    {sums of utilization_1m},
    min(utilization) AS utilization_min,
    max(utilization) AS utilization_max,
    min(watts) AS watts_min,
    max(watts) AS watts_max,
    min(temperature_celsius) AS temperature_celsius_min,
    max(temperature_celsius) AS temperature_celsius_max,
    min(arrived) AS arrived_min
FROM utilization
WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')} AND arrived <= {known:DateTime64(3, 'UTC')}
    AND (
        SELECT throwIf(
            (SELECT sum(samples) FROM utilization_1m WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')})
            > (SELECT count() FROM utilization WHERE toStartOfMinute(time) >= {start:DateTime('UTC')} AND toStartOfMinute(time) < {stop:DateTime('UTC')}),
            'Raw rows of these minutes have expired, and what was known of them with them. Ask for later minutes, or utilization_1m for what is known now.')
    ) = 0
GROUP BY minute, site, node, device, vendor, model, topic_partition
SETTINGS prefer_column_name_to_alias = 1
COMMENT 'utilization_1m as known at a time: of the minutes from start to stop, what had arrived in the log by known (arrived <= known; the tables showed it a flush later). Columns as in utilization_1m read with GROUP BY, without upto. Refuses minutes of which raw rows have expired.';

-- floor(4 log2(x)) is the exponent of x^4: exact, where a logarithm may round up or down at a bucket's edge.
CREATE OR REPLACE VIEW tokens_1m_known AS
WITH
    seconds -> greatest(seconds * 1e6, 1.) * greatest(seconds * 1e6, 1.) AS square,
    seconds -> toInt16(bitShiftRight(reinterpretAsUInt64(square(seconds) * square(seconds)), 52) - 1023) AS bucket
SELECT
    toStartOfMinute(time) AS minute,
    site, region, gateway, provider, model, topic_partition,
    {sums of tokens_1m},
    sumMapIf(map(bucket(ifNull(duration_seconds, 0)), requests), isNotNull(duration_seconds)) AS duration_histogram,
    sumMapIf(map(bucket(ifNull(first_token_seconds, 0)), requests), isNotNull(first_token_seconds)) AS first_token_histogram,
    min(arrived) AS arrived_min
FROM tokens
WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')} AND arrived <= {known:DateTime64(3, 'UTC')}
    AND (
        SELECT throwIf(
            (SELECT sum(samples) FROM tokens_1m WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')})
            > (SELECT count() FROM tokens WHERE toStartOfMinute(time) >= {start:DateTime('UTC')} AND toStartOfMinute(time) < {stop:DateTime('UTC')}),
            'Raw rows of these minutes have expired, and what was known of them with them. Ask for later minutes, or tokens_1m for what is known now.')
    ) = 0
GROUP BY minute, site, region, gateway, provider, model, topic_partition
SETTINGS prefer_column_name_to_alias = 1
COMMENT 'tokens_1m as known at a time: of the minutes from start to stop, what had arrived in the log by known (arrived <= known; the tables showed it a flush later). Columns as in tokens_1m read with GROUP BY, without upto. Refuses minutes of which raw rows have expired.';

CREATE OR REPLACE VIEW usage_1m_known AS
SELECT
    toStartOfMinute(time) AS minute,
    tenant, package, model, topic_partition,
    {sums of usage_1m},
    min(arrived) AS arrived_min
FROM tokens
WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')} AND arrived <= {known:DateTime64(3, 'UTC')}
    AND (
        SELECT throwIf(
            (SELECT sum(samples) FROM usage_1m WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')})
            > (SELECT count() FROM tokens WHERE toStartOfMinute(time) >= {start:DateTime('UTC')} AND toStartOfMinute(time) < {stop:DateTime('UTC')}),
            'Raw rows of these minutes have expired, and what was known of them with them. Ask for later minutes, or usage_1m for what is known now.')
    ) = 0
GROUP BY minute, tenant, package, model, topic_partition
SETTINGS prefer_column_name_to_alias = 1
COMMENT 'usage_1m as known at a time: of the minutes from start to stop, what had arrived in the log by known (arrived <= known; the tables showed it a flush later). Columns as in usage_1m read with GROUP BY, without upto. Refuses minutes of which raw rows have expired.';

CREATE OR REPLACE VIEW links_1m_known AS
SELECT
    toStartOfMinute(time) AS minute,
    link, a_site, z_site, topic_partition,
    {sums of links_1m},
    min(latency_seconds) AS latency_seconds_min,
    max(latency_seconds) AS latency_seconds_max,
    min(rx_power_dbm) AS rx_power_dbm_min,
    max(rx_power_dbm) AS rx_power_dbm_max,
    min(arrived) AS arrived_min
FROM links
WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')} AND arrived <= {known:DateTime64(3, 'UTC')}
    AND (
        SELECT throwIf(
            (SELECT sum(samples) FROM links_1m WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')})
            > (SELECT count() FROM links WHERE toStartOfMinute(time) >= {start:DateTime('UTC')} AND toStartOfMinute(time) < {stop:DateTime('UTC')}),
            'Raw rows of these minutes have expired, and what was known of them with them. Ask for later minutes, or links_1m for what is known now.')
    ) = 0
GROUP BY minute, link, a_site, z_site, topic_partition
SETTINGS prefer_column_name_to_alias = 1
COMMENT 'links_1m as known at a time: of the minutes from start to stop, what had arrived in the log by known (arrived <= known; the tables showed it a flush later). Columns as in links_1m read with GROUP BY, without upto. Refuses minutes of which raw rows have expired.';
