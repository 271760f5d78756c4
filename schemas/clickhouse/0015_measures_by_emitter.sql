-- Energy again, by meter and no longer by row: one array a meter holds its minutes in order, so that the reading before
-- and the one after are a shift away. Windows over rows sorted all of them by four names (6 hours of 325 meters: 390 ms
-- on one core, 75 ms now), and kept conditions on the role or site from reaching the table. What it says is the same.
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

-- Completeness again, by emitter: its minutes as one array, those of a site sorted together with every minute of the range
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

-- The minutes of these are one side, whose range depends on the step, and not two: the view energy stands in each once, and
-- ClickHouse takes as long to plan it (30 ms) as to read a quarter of an hour of it.

CREATE OR REPLACE VIEW energy_in_steps AS
WITH days AS ({days of power_1m in energy_1h})
SELECT hour AS minute, site, node, meter, role, joules, seconds, method
FROM energy_1h
WHERE {step:UInt32} >= 3600 AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {stop:DateTime('UTC')}
    AND seconds > 0 AND toDate(hour) IN (SELECT day FROM days WHERE open = 0)
UNION ALL
SELECT minute, site, node, meter, role, joules, seconds, method
FROM energy(
    start = if({step:UInt32} < 3600, {start:DateTime('UTC')}, ({first open of power_1m in energy_1h})),
    stop = if({step:UInt32} < 3600, {stop:DateTime('UTC')}, toStartOfHour({stop:DateTime('UTC')} + INTERVAL 3599 SECOND)))
WHERE {step:UInt32} < 3600 OR toDate(minute) IN (SELECT day FROM days WHERE open != 0)
COMMENT 'Energy by meter, from start to stop, for steps of so many seconds: the view energy, and with a step of 3600 or more the sums of its hours from energy_1h, as minute the begin of the hour, wherever that has every sample; the range is taken to whole hours then. joules / seconds is a mean power.';

CREATE OR REPLACE VIEW site_energy_in_steps AS
WITH days AS ({days of power_1m in site_energy_1h})
SELECT
    hour AS minute, site, facility_joules, it_joules, matched_facility_joules, matched_it_joules,
    utility_watts_max, utility_watts, utility_minutes
FROM site_energy_1h
WHERE {step:UInt32} >= 3600 AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {stop:DateTime('UTC')}
    AND toDate(hour) IN (SELECT day FROM days WHERE open = 0)
UNION ALL
SELECT
    minute, site, facility_joules, it_joules, matched_facility_joules, matched_it_joules,
    utility_watts, ifNull(utility_watts, 0), toUInt64(isNotNull(utility_watts))
FROM site_energy(
    start = if({step:UInt32} < 3600, {start:DateTime('UTC')}, ({first open of power_1m in site_energy_1h})),
    stop = if({step:UInt32} < 3600, {stop:DateTime('UTC')}, toStartOfHour({stop:DateTime('UTC')} + INTERVAL 3599 SECOND)))
WHERE {step:UInt32} < 3600 OR toDate(minute) IN (SELECT day FROM days WHERE open != 0)
COMMENT 'The view site_energy, for steps of so many seconds: with 3600 or more the sums of its hours from site_energy_1h, as minute the begin of the hour, wherever that has every sample. utility_watts_max: W of the highest minute; utility_watts / utility_minutes: W of the mean minute.';

-- A day of silence has no samples, so none that are open: today is always read by the minute.
CREATE OR REPLACE VIEW completeness_in_steps AS
WITH days AS ({days of power_1m, utilization_1m, links_1m in completeness_1h})
SELECT hour AS minute, topic, site, expected, heard
FROM completeness_1h
WHERE {step:UInt32} >= 3600 AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {stop:DateTime('UTC')}
    AND toDate(hour) IN (SELECT day FROM days WHERE open = 0)
UNION ALL
SELECT minute, topic, site, expected, heard
FROM completeness(
    start = if({step:UInt32} < 3600, {start:DateTime('UTC')}, least(({first open of power_1m, utilization_1m, links_1m in completeness_1h}), toStartOfDay({stop:DateTime('UTC')}))),
    stop = if({step:UInt32} < 3600, {stop:DateTime('UTC')}, toStartOfHour({stop:DateTime('UTC')} + INTERVAL 3599 SECOND)))
WHERE {step:UInt32} < 3600 OR toDate(minute) NOT IN (SELECT day FROM days WHERE open = 0)
COMMENT 'The view completeness, for steps of so many seconds: with 3600 or more the sums of its hours from completeness_1h, as minute the begin of the hour, wherever that has every sample; expected and heard are then sums over the minutes.';

CREATE OR REPLACE VIEW site_capacity AS
WITH
    feeds AS
    (
        SELECT c.site AS site, argMax(c.amount, (c.effective, c.time)) AS capacity_watts
        FROM capacity AS c
        WHERE c.resource = 'utility_feed' AND c.status = 'actual' AND c.effective < {stop:DateTime('UTC')}
        GROUP BY site
    ),
    installed AS
    (
        SELECT f.site AS site, sum(f.accelerators) AS accelerators, sum(f.rated_watts) AS rated_it_watts
        FROM fleet AS f
        GROUP BY site
    )
SELECT
    s.site AS site, s.kind AS kind, s.region AS region,
    if(feeds.capacity_watts > 0, feeds.capacity_watts, s.utility_capacity_watts) AS capacity_watts,
    installed.accelerators AS accelerators,
    installed.rated_it_watts AS rated_it_watts
FROM sites AS s
LEFT JOIN feeds USING (site)
LEFT JOIN installed USING (site)
COMMENT 'What each site of the catalogue can carry at the time stop. capacity_watts: W of the utility feed, the newest actual capacity event, else the catalogue; accelerators: {device} installed; rated_it_watts: W of the fleet under full load.';

CREATE OR REPLACE VIEW site_headroom_in_steps AS
WITH
    drawn AS
    (
        SELECT
            e.site AS site,
            max(e.utility_watts_max) AS peak_watts,
            sum(e.utility_watts) / nullIf(sum(e.utility_minutes), 0) AS mean_watts
        FROM site_energy_in_steps(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')}, step = {step:UInt32}) AS e
        GROUP BY site
    ),
    busy AS
    (
        SELECT
            u.site AS site,
            sum(u.utilization_ppm) / 1e6 / nullIf(sum(u.utilization_samples), 0) AS utilization
        FROM utilization_in_steps(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')}, step = {step:UInt32}) AS u
        GROUP BY site
    )
SELECT
    c.site AS site, c.kind AS kind, c.region AS region,
    c.capacity_watts AS capacity_watts,
    drawn.mean_watts AS mean_watts,
    drawn.peak_watts AS peak_watts,
    capacity_watts - peak_watts AS headroom_watts,
    peak_watts / nullIf(capacity_watts, 0) AS peak_share,
    c.accelerators AS accelerators,
    c.rated_it_watts AS rated_it_watts,
    busy.utilization AS utilization
FROM site_capacity(stop = {stop:DateTime('UTC')}) AS c
LEFT JOIN drawn USING (site)
LEFT JOIN busy USING (site)
COMMENT 'What each site of the catalogue has left, from start to stop, which are taken to whole hours with a step (s) of 3600 or more. capacity_watts: W of the utility feed, the newest actual capacity event, else the catalogue; mean_watts, peak_watts: W drawn by the role utility, by minutes, null where not heard; headroom_watts: W, capacity - peak; peak_share: peak / capacity; accelerators: {device} installed; rated_it_watts: W of the fleet under full load; utilization: 0 to 1, mean of the devices.';
