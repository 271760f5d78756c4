-- Views for people. Those over time take (start, stop), start inclusive and stop exclusive, because a window or a join
-- inside them would otherwise read the whole table: SELECT * FROM pue(start = '2026-11-01 00:00:00', stop = now()).
-- The engine keeps no comments on the columns of a view with parameters: there the view's comment names them.

-- Hold the last power for the emitter's own interval, or until the next reading, and no longer: an hourly meter has a
-- power in each minute of its hour, and a silent one has none. An hour more is read on both sides, so that such a
-- meter, or a counter, has a reading before the range and after it. A counter's difference is spread over the seconds
-- between its readings, not over whole minutes: read after 8.9 minutes, steady power would look 11 % higher.
CREATE OR REPLACE VIEW energy AS
WITH
    toDateTime64(0, 9, 'UTC') AS never,
    minutes AS
    (
        SELECT
            minute, site, node, meter, role,
            sum(p.milliwatts) AS milliwatts,
            sum(p.power_samples) AS power_samples,
            max(p.joules_last) AS reading
        FROM power_1m AS p
        WHERE minute >= {start:DateTime('UTC')} - INTERVAL 1 HOUR AND minute < {stop:DateTime('UTC')} + INTERVAL 1 HOUR
        GROUP BY minute, site, node, meter, role
    ),
    readings AS
    (
        SELECT
            minute, site, node, meter, role, milliwatts, power_samples, reading,
            max(reading.1 > never) OVER (PARTITION BY site, node, meter, role) AS counts,
            max(reading) OVER (PARTITION BY site, node, meter, role ORDER BY minute
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
            leadInFrame(minute, 1, minute + INTERVAL 1 DAY) OVER (PARTITION BY site, node, meter, role ORDER BY minute
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS next
        FROM minutes
    ),
    intervals AS
    (
        SELECT
            site, node, emitter AS meter, toStartOfMinute(since) AS valid_from,
            argMax(interval_seconds, registered) AS interval_seconds
        FROM emitters
        WHERE topic = 'power'
        GROUP BY site, node, emitter, valid_from
    ),
    spread AS
    (
        SELECT
            site, node, meter, role, counts,
            multiIf(
                counts AND (reading.1 = never OR before.1 = never), [],
                counts, range(toUInt32(toStartOfMinute(before.1)), toUInt32(minute) + 1, 60),
                power_samples = 0, [],
                range(toUInt32(minute), least(toUInt32(next), toUInt32(minute) + greatest(interval_seconds, 60)), 60)
            ) AS covered,
            toFloat64(before.1) AS began,
            toFloat64(reading.1) AS ended,
            if(counts,
                if(reading.2 >= before.2, reading.2 - before.2, reading.2) / (ended - began),
                milliwatts / 1e3 / power_samples) AS watts
        FROM readings
        ASOF LEFT JOIN intervals
            ON readings.site = intervals.site AND readings.node = intervals.node AND readings.meter = intervals.meter
            AND readings.minute >= intervals.valid_from
    ),
    parts AS
    (
        SELECT
            arrayJoin(covered) AS began_minute,
            site, node, meter, role, counts, watts,
            if(counts, least(ended, toFloat64(began_minute) + 60) - greatest(began, toFloat64(began_minute)), 60)
                AS part_seconds
        FROM spread
    )
SELECT
    toDateTime(began_minute, 'UTC') AS minute,
    site, node, meter, role,
    sum(watts * part_seconds) AS joules,
    sum(part_seconds) AS seconds,
    if(any(counts), 'counter', 'power') AS method
FROM parts
WHERE part_seconds > 0 AND minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')}
GROUP BY minute, site, node, meter, role
COMMENT 'Energy by meter and minute, from start to stop. joules: J; seconds: of how much of the minute, so that joules / seconds is its mean power. method: counter = the difference of counter readings, spread over the time between them, a reset counting from 0; power = mean power held for the emitter''s interval, never across a gap. A minute without energy has no row. Which roles may be added up: roles overlap (rack, node and psu are inside it), meters of one role don''t.';

CREATE OR REPLACE VIEW pue AS
WITH
    by_minute AS
    (
        SELECT
            minute, site,
            sumOrNullIf(joules, role IN ('utility', 'generation')) AS facility,
            sumOrNullIf(joules, role = 'it') AS it,
            groupUniqArray(method) AS methods
        FROM energy(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')})
        WHERE role IN ('utility', 'generation', 'it')
        GROUP BY minute, site
    )
SELECT
    toStartOfHour(minute) AS hour,
    site,
    sum(facility) AS facility_joules,
    sum(it) AS it_joules,
    sumIf(facility, isNotNull(it)) / nullIf(sumIf(it, isNotNull(facility)), 0) AS interim_pue,
    countIf(facility + it > 0) AS minutes,
    arrayStringConcat(arraySort(groupUniqArrayArray(methods)), ' + ') AS method
FROM by_minute
GROUP BY hour, site
COMMENT 'Interim PUE (ISO/IEC 30134-2 for a period shorter than a year) by hour and site, from start to stop. facility_joules: J of the roles utility and generation; it_joules: J of the role it; interim_pue: facility / it over the minutes in which both are known; minutes: how many those are; method: how the energy was found (see energy).';

CREATE OR REPLACE VIEW tokens_per_kwh AS
WITH
    power AS
    (
        SELECT hour, site, facility_joules, it_joules
        FROM pue(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')})
    ),
    tokens AS
    (
        SELECT
            toStartOfHour(minute) AS hour,
            site,
            sum(input_tokens) AS input_tokens,
            sum(output_tokens) AS output_tokens
        FROM tokens_1m
        WHERE minute >= {start:DateTime('UTC')} AND minute < {stop:DateTime('UTC')} AND site != ''
        GROUP BY hour, site
    )
SELECT
    hour, site, input_tokens, output_tokens, facility_joules, it_joules,
    (input_tokens + output_tokens) * 3.6e6 / nullIf(it_joules, 0) AS tokens_per_it_kwh,
    (input_tokens + output_tokens) * 3.6e6 / nullIf(facility_joules, 0) AS tokens_per_facility_kwh
FROM tokens
INNER JOIN power USING (hour, site)
COMMENT 'Tokens for a kWh by hour and serving site, from start to stop. input_tokens, output_tokens: {token}; facility_joules, it_joules: J measured (see pue); tokens_per_it_kwh: all tokens for a kWh of measured IT energy; tokens_per_facility_kwh: for a kWh of measured facility energy.';

CREATE OR REPLACE VIEW package_balances
(
    package LowCardinality(String) COMMENT 'The token package.',
    tenant LowCardinality(String) COMMENT 'Who owns it.',
    granted_tokens Int64 COMMENT 'Granted and topped up. Unit: {token}.',
    withdrawn_tokens Int64 COMMENT 'Voided and expired. Unit: {token}.',
    used_tokens Int64 COMMENT 'Input and output tokens used, each at rate 1. Unit: {token}.',
    left_tokens Int64 COMMENT 'granted - withdrawn - used; below 0 where more was used than granted. Unit: {token}.',
    used_share Nullable(Float64) COMMENT 'used / (granted - withdrawn). Unit: 1.',
    expiry Nullable(DateTime64(9, 'UTC')) COMMENT 'Latest expiry of its grants; null = never ends.',
    last_used Nullable(DateTime('UTC')) COMMENT 'Last minute of use.'
)
AS
WITH
    ledger AS
    (
        SELECT
            p.package AS package,
            any(p.tenant) AS tenant,
            sumIf(p.tokens, p.entry IN ('granted', 'topped_up')) AS granted_tokens,
            sumIf(p.tokens, p.entry IN ('voided', 'expired')) AS withdrawn_tokens,
            if(countIf(isNull(p.expiry) AND p.entry IN ('granted', 'topped_up')) > 0, NULL, max(p.expiry)) AS expiry
        FROM packages AS p
        GROUP BY package
    ),
    usage AS
    (
        SELECT u.package AS package, sum(u.input_tokens) + sum(u.output_tokens) AS used_tokens, max(u.minute) AS last_used
        FROM usage_1m AS u
        WHERE u.package != ''
        GROUP BY package
    )
SELECT
    package, tenant, granted_tokens, withdrawn_tokens, used_tokens,
    granted_tokens - withdrawn_tokens - used_tokens AS left_tokens,
    used_tokens / nullIf(granted_tokens - withdrawn_tokens, 0) AS used_share,
    expiry,
    if(toUInt32(last_used) = 0, NULL, last_used) AS last_used
FROM ledger
LEFT JOIN usage USING (package)
COMMENT 'What is left of each token package, every token at rate 1 (conversion rates and burn-down order are not applied).';

CREATE OR REPLACE VIEW completeness AS
WITH
    known AS
    (
        SELECT
            topic, site, node, emitter, since,
            argMax(e.interval_seconds, e.registered) AS interval_seconds,
            argMax(e.until, e.registered) AS until,
            argMax(e.maintenance, e.registered) AS maintenance
        FROM emitters AS e
        WHERE e.since < {stop:DateTime('UTC')}
        GROUP BY topic, site, node, emitter, since
        HAVING NOT maintenance AND until > {start:DateTime('UTC')}
    ),
    -- Emitters that are expected over the same time are one row: thousands come down to a few a site.
    crews AS
    (
        SELECT topic, site, since, until, count() AS emitters
        FROM known
        GROUP BY topic, site, since, until
    ),
    expected AS
    (
        SELECT minute, topic, site, sum(emitters) AS expected
        FROM crews
        ARRAY JOIN range(
            toUInt32(toStartOfMinute(greatest(since, {start:DateTime('UTC')}))),
            toUInt32(least(until, toStartOfMinute({stop:DateTime('UTC')}))),
            60) AS minute
        GROUP BY minute, topic, site
    ),
    samples AS
    (
        SELECT DISTINCT minute, 'power' AS topic, site, node, meter AS emitter
        FROM power_1m
        WHERE minute >= toStartOfMinute({start:DateTime('UTC')}) - toIntervalSecond((SELECT max(interval_seconds) FROM emitters)) AND minute < {stop:DateTime('UTC')}
        UNION ALL
        SELECT DISTINCT minute, 'utilization', site, node, device
        FROM utilization_1m
        WHERE minute >= toStartOfMinute({start:DateTime('UTC')}) - toIntervalSecond((SELECT max(interval_seconds) FROM emitters)) AND minute < {stop:DateTime('UTC')}
        UNION ALL
        SELECT DISTINCT minute, 'links', a_site, '', link
        FROM links_1m
        WHERE minute >= toStartOfMinute({start:DateTime('UTC')}) - toIntervalSecond((SELECT max(interval_seconds) FROM emitters)) AND minute < {stop:DateTime('UTC')}
    ),
    heard AS
    (
        SELECT covered AS minute, topic, site, uniqExact(node, emitter) AS heard
        FROM samples
        INNER JOIN known USING (topic, site, node, emitter)
        ARRAY JOIN range(
            toUInt32(minute),
            toUInt32(minute) + greatest(interval_seconds, 60),
            60) AS covered
        WHERE covered >= toUInt32(toStartOfMinute({start:DateTime('UTC')}))
            AND covered < toUInt32(toStartOfMinute({stop:DateTime('UTC')}))
            AND covered >= toUInt32(toStartOfMinute(since)) AND covered < toUInt32(until)
        GROUP BY covered, topic, site
    )
SELECT
    toDateTime(minute, 'UTC') AS minute,
    topic, site, expected, heard,
    heard / expected AS completeness
FROM expected
LEFT JOIN heard USING (minute, topic, site)
COMMENT 'Emitters heard and expected by minute, topic and site, from the minute of start to the one before that of stop. heard: emitters with a sample within their own interval (an hourly meter is heard for the hour); expected: registered emitters that are not in maintenance; completeness: heard / expected, 0 to 1. Nothing expected: no row.';
