-- Views for people. Those over time take (start, stop), start inclusive and stop exclusive, because a window or a join
-- inside them would otherwise read the whole table: SELECT * FROM pue(start = '2026-11-01 00:00:00', stop = now()).
-- The engine keeps no comments on the columns of a view with parameters: there the view's comment names them.

-- Hold the last power for the emitter's own interval, or until the next reading, and no longer: an hourly meter has a
-- power in each minute of its hour, and a silent one has none. An hour more is read on both sides, so that such a
-- meter, or a counter, has a reading before the range and after it. A counter's difference is spread over the seconds
-- between its readings, not over whole minutes: read after 8.9 minutes, steady power would look 11 % higher.
-- By meter, not by row: one array a meter holds its minutes in order, so that the reading before and the one after are a
-- shift away. Windows over rows sort all of them by four names (6 hours of 325 meters: 390 ms on one core, 75 ms so), and
-- keep conditions on the role or site from reaching the table.
CREATE OR REPLACE VIEW energy AS
WITH
    meters AS
    (
        SELECT
            site, node, meter, role,
            arraySort(groupArrayIf(joules_last, joules_last.1 > toDateTime64(0, 9, 'UTC'))) AS counted,
            if(notEmpty(counted), [], arraySort(groupArray((toUInt32(minute), power_samples, milliwatts)))) AS told
        FROM power_1m
        WHERE minute >= {start:DateTime('UTC')} - INTERVAL 1 HOUR AND minute < {stop:DateTime('UTC')} + INTERVAL 1 HOUR
        GROUP BY site, node, meter, role
    ),
    since AS
    (
        SELECT
            site, node, emitter AS meter, toUInt32(toStartOfMinute(since)) AS valid_from,
            argMax(interval_seconds, registered) AS interval_seconds
        FROM emitters
        WHERE topic = 'power'
        GROUP BY site, node, meter, valid_from
    ),
    intervals AS
    (
        SELECT site, node, meter, arraySort(groupArray((valid_from, interval_seconds))) AS intervals
        FROM since
        GROUP BY site, node, meter
    ),
    by_minute AS
    (
        SELECT
            site, node, meter, role, intervals,
            -- The last reading of each minute, and the sums up to the end of each: rows that aren't merged yet come apart.
            arrayFilter(
                (reading, next) -> toStartOfMinute(reading.1) != toStartOfMinute(next.1),
                counted, arrayShiftLeft(counted, 1)
            ) AS readings,
            arrayMap((minute, next) -> minute != next, told.1, arrayShiftLeft(told.1, 1)) AS ends,
            arrayFilter((minute, is_end) -> is_end, told.1, ends) AS minutes,
            arrayFilter((upto, is_end) -> is_end, arrayCumSum(told.2), ends) AS samples_upto,
            arrayFilter((upto, is_end) -> is_end, arrayCumSum(told.3), ends) AS milliwatts_upto
        FROM meters
        LEFT JOIN intervals USING (site, node, meter)
    ),
    powers AS
    (
        SELECT
            site, node, meter, role,
            notEmpty(readings) AS counts,
            if(counts, arrayMap(reading -> toFloat64(reading.1), readings),
                arrayMap(minute -> toFloat64(minute), minutes)) AS times,
            -- Of a counter the next reading; of a power the end of its hold, in whole minutes. 0: there is none.
            if(counts, arrayShiftLeft(times, 1),
                arrayMap(
                    (minute, next) -> toFloat64(least(next, minute + 60 * greatest(1,
                        intDiv(arrayLast(one -> one.1 <= minute, intervals).2 + 59, 60)))),
                    minutes, arrayShiftLeft(minutes, 1, 4294967295))
            ) AS untils,
            if(counts, arrayShiftRight(times, 1), arrayResize([0.], length(times))) AS befores,
            if(counts,
                arrayMap(
                    (before, reading) -> if(reading.2 >= before.2, reading.2 - before.2, reading.2)
                        / (toFloat64(reading.1) - toFloat64(before.1)),
                    arrayShiftRight(readings, 1), readings),
                arrayMap(
                    (before, upto, samples_before, samples_upto) ->
                        (upto - before) / 1e3 / (samples_upto - samples_before),
                    arrayShiftRight(milliwatts_upto, 1), milliwatts_upto,
                    arrayShiftRight(samples_upto, 1), samples_upto)
            ) AS watts,
            if(counts, arrayShiftLeft(watts, 1), watts) AS watts_after
        FROM by_minute
    ),
    parts AS
    (
        SELECT
            site, node, meter, role, counts, time, power_before, power_after,
            -- Its own minute has energy of before the reading and of after; those until the next reading's are full.
            floor(time / 60) * 60 AS own,
            if(before = 0, time, greatest(before, own)) AS began,
            if(until = 0, time, least(until, own + 60)) AS ended,
            range(
                greatest(toUInt32(if(ended > began, own, own + 60)), toUInt32(ceil(toUInt32({start:DateTime('UTC')}) / 60) * 60)),
                least(toUInt32(greatest(own + 60, floor(until / 60) * 60)), toUInt32({stop:DateTime('UTC')})),
                60
            ) AS covered
        FROM powers
        ARRAY JOIN times AS time, befores AS before, untils AS until, watts AS power_before, watts_after AS power_after
        WHERE isFinite(power_before)
    )
SELECT
    toDateTime(began_minute, 'UTC') AS minute, site, node, meter, role,
    if(began_minute = own, (time - began) * power_before + (ended - time) * power_after, 60 * power_after) AS joules,
    if(began_minute = own, ended - began, 60) AS seconds,
    if(counts, 'counter', 'power') AS method
FROM parts
ARRAY JOIN covered AS began_minute
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

-- By emitter: its minutes as one array, those of a site sorted together with every minute of the range
-- and counted, likewise the begins and ends of what is expected. Joining and grouping each emitter's minutes as rows took
-- 730 ms for a day of 509 emitters on one core, this takes 150.
CREATE OR REPLACE VIEW completeness AS
WITH
    known AS
    (
        SELECT
            topic, site, node, emitter, since,
            argMax(e.interval_seconds, e.registered) AS interval_seconds,
            argMax(e.until, e.registered) AS until,
            argMax(e.maintenance, e.registered) AS maintenance,
            toUInt32(toStartOfMinute(greatest(since, {start:DateTime('UTC')}))) AS first,
            toUInt32(least(until, toStartOfMinute({stop:DateTime('UTC')}))) AS past
        FROM emitters AS e
        WHERE e.since < {stop:DateTime('UTC')}
        GROUP BY topic, site, node, emitter, since
        HAVING NOT maintenance AND until > {start:DateTime('UTC')}
    ),
    samples AS
    (
        SELECT 'power' AS topic, site, node, meter AS emitter, groupArray(toUInt32(minute)) AS minutes
        FROM power_1m
        WHERE minute >= toStartOfMinute({start:DateTime('UTC')}) - toIntervalSecond((SELECT max(interval_seconds) FROM emitters)) AND minute < {stop:DateTime('UTC')}
        GROUP BY site, node, emitter
        UNION ALL
        SELECT 'utilization', site, node, device AS emitter, groupArray(toUInt32(minute))
        FROM utilization_1m
        WHERE minute >= toStartOfMinute({start:DateTime('UTC')}) - toIntervalSecond((SELECT max(interval_seconds) FROM emitters)) AND minute < {stop:DateTime('UTC')}
        GROUP BY site, node, emitter
        UNION ALL
        SELECT 'links', a_site, '', link AS emitter, groupArray(toUInt32(minute))
        FROM links_1m
        WHERE minute >= toStartOfMinute({start:DateTime('UTC')}) - toIntervalSecond((SELECT max(interval_seconds) FROM emitters)) AND minute < {stop:DateTime('UTC')}
        GROUP BY a_site, emitter
    ),
    by_emitter AS
    (
        SELECT
            topic, site, node, emitter,
            groupUniqArrayArray(arrayFilter(
                minute -> minute >= first AND minute < past,
                if(interval_seconds <= 60, minutes, arrayFlatten(arrayMap(
                    minute -> range(minute, minute + interval_seconds, 60), minutes))))) AS minutes
        FROM samples
        INNER JOIN known USING (topic, site, node, emitter)
        GROUP BY topic, site, node, emitter
    ),
    heard AS
    (
        SELECT topic, site, groupArrayArray(minutes) AS minutes
        FROM by_emitter
        GROUP BY topic, site
    ),
    expected AS
    (
        SELECT
            topic, site,
            arrayMap(
                minute -> (minute, 1, 0),
                range(
                    toUInt32(toStartOfMinute({start:DateTime('UTC')})),
                    toUInt32(toStartOfMinute({stop:DateTime('UTC')})),
                    60)
            ) AS grid,
            arraySort(arrayConcat(groupArray((first, 0, 1)), groupArray((past, 0, -1)), grid)) AS changes,
            arrayFilter((emitters, one) -> one.2 = 1, arrayCumSum(changes.3), changes) AS emitters
        FROM known
        WHERE first < past
        GROUP BY topic, site
    ),
    both AS
    (
        SELECT
            topic, site, grid.1 AS minutes, emitters,
            arraySort(arrayConcat(minutes, heard.minutes)) AS told,
            arrayFilter(
                (upto, minute, next) -> minute != next, arrayEnumerate(told), told, arrayShiftLeft(told, 1)) AS upto,
            arrayMap((upto, before) -> upto - before - 1, upto, arrayShiftRight(upto, 1)) AS heard_emitters
        FROM expected
        LEFT JOIN heard USING (topic, site)
    )
SELECT
    toDateTime(began, 'UTC') AS minute,
    topic, site, toUInt64(expected_emitters) AS expected, toUInt64(heard_here) AS heard,
    heard / expected AS completeness
FROM both
ARRAY JOIN minutes AS began, emitters AS expected_emitters, heard_emitters AS heard_here
WHERE expected_emitters > 0
COMMENT 'Emitters heard and expected by minute, topic and site, from the minute of start to the one before that of stop. heard: emitters with a sample within their own interval (an hourly meter is heard for the hour); expected: registered emitters that are not in maintenance; completeness: heard / expected, 0 to 1. Nothing expected: no row.';
