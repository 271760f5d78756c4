-- The rollups for questions over weeks: with a step of an hour or more, days of which the hourly table has every sample
-- are read by the hour, and only the others, today above all, by the minute. Which these are is asked of the two tables
-- each time (see the projections by_day), so that a late event is never missed: its day is read by the minute until
-- Dagster has rebuilt it. With a shorter step all is read by the minute.

CREATE OR REPLACE VIEW power_in_steps AS
{steps of power_1m in power_1h}
COMMENT 'Meter readings by meter, from start to stop, for steps of so many seconds: the columns of power_1h, with the begin of a minute or an hour as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read from power_1h where that is complete. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW utilization_in_steps AS
{steps of utilization_1m in utilization_1h}
COMMENT 'Accelerator samples by device, from start to stop, for steps of so many seconds: the columns of utilization_1h, with the begin of a minute or an hour as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read from utilization_1h where that is complete. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW tokens_in_steps AS
{steps of tokens_1m in tokens_1h}
COMMENT 'Gateway usage by where, what and who served, from start to stop, for steps of so many seconds: the columns of tokens_1h, with the begin of a minute or an hour as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read from tokens_1h where that is complete. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW usage_in_steps AS
{steps of usage_1m in usage_1h}
COMMENT 'Token usage by customer, package and model, from start to stop, for steps of so many seconds: the columns of usage_1h, with the begin of a minute or an hour as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read from usage_1h where that is complete. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW links_in_steps AS
{steps of links_1m in links_1h}
COMMENT 'Link samples by link, from start to stop, for steps of so many seconds: the columns of links_1h, with the begin of a minute or an hour as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read from links_1h where that is complete. Partials: read with GROUP BY.';

-- The minutes of these are one side, whose range depends on the step, and not two: the view energy stands in each once, and
-- ClickHouse takes as long to plan it (30 ms) as to read a quarter of an hour of it.
CREATE OR REPLACE VIEW energy_in_steps AS
WITH days AS ({days of power_1m in energy_1h})
SELECT hour AS minute, site, node, meter, role, joules, seconds, method
FROM energy_1h
WHERE {step:UInt32} >= 3600 AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {stop:DateTime('UTC')}
    AND seconds > 0 AND toDate(hour) IN (SELECT date FROM days WHERE open = 0)
UNION ALL
SELECT minute, site, node, meter, role, joules, seconds, method
FROM energy(
    start = if({step:UInt32} < 3600, {start:DateTime('UTC')}, ({first open of power_1m in energy_1h})),
    stop = if({step:UInt32} < 3600, {stop:DateTime('UTC')}, toStartOfHour({stop:DateTime('UTC')} + INTERVAL 3599 SECOND)))
WHERE {step:UInt32} < 3600 OR toDate(minute) IN (SELECT date FROM days WHERE open != 0)
COMMENT 'Energy by meter, from start to stop, for steps of so many seconds: the view energy, and with a step of 3600 or more the sums of its hours from energy_1h, as minute the begin of the hour, wherever that has every sample; the range is taken to whole hours then. joules / seconds is a mean power.';

CREATE OR REPLACE VIEW site_energy AS
SELECT
    minute, site,
    sumOrNullIf(joules, role IN ('utility', 'generation')) AS facility_joules,
    sumOrNullIf(joules, role = 'it') AS it_joules,
    if(isNotNull(facility_joules) AND it_joules > 0, assumeNotNull(facility_joules), 0) AS matched_facility_joules,
    if(isNotNull(facility_joules) AND it_joules > 0, assumeNotNull(it_joules), 0) AS matched_it_joules,
    sumOrNullIf(joules / seconds, role = 'utility') AS utility_watts
FROM energy(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')})
WHERE role IN ('utility', 'generation', 'it')
GROUP BY minute, site
COMMENT 'What interim PUE and headroom are made of, by minute and site, from start to stop. facility_joules, it_joules: J of the roles utility and generation, and of it, null where not known; matched_facility_joules, matched_it_joules: J of the minutes in which both are known, else 0; utility_watts: W of the role utility.';

CREATE OR REPLACE VIEW site_energy_in_steps AS
WITH days AS ({days of power_1m in site_energy_1h})
SELECT
    hour AS minute, site, facility_joules, it_joules, matched_facility_joules, matched_it_joules,
    utility_watts_max, utility_watts, utility_minutes
FROM site_energy_1h
WHERE {step:UInt32} >= 3600 AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {stop:DateTime('UTC')}
    AND toDate(hour) IN (SELECT date FROM days WHERE open = 0)
UNION ALL
SELECT
    minute, site, facility_joules, it_joules, matched_facility_joules, matched_it_joules,
    utility_watts, ifNull(utility_watts, 0), toUInt64(isNotNull(utility_watts))
FROM site_energy(
    start = if({step:UInt32} < 3600, {start:DateTime('UTC')}, ({first open of power_1m in site_energy_1h})),
    stop = if({step:UInt32} < 3600, {stop:DateTime('UTC')}, toStartOfHour({stop:DateTime('UTC')} + INTERVAL 3599 SECOND)))
WHERE {step:UInt32} < 3600 OR toDate(minute) IN (SELECT date FROM days WHERE open != 0)
COMMENT 'The view site_energy, for steps of so many seconds: with 3600 or more the sums of its hours from site_energy_1h, as minute the begin of the hour, wherever that has every sample. utility_watts_max: W of the highest minute; utility_watts / utility_minutes: W of the mean minute.';

-- A day of silence has no samples, so none that are open: today is always read by the minute.
CREATE OR REPLACE VIEW completeness_in_steps AS
WITH days AS ({days of power_1m, utilization_1m, links_1m in completeness_1h})
SELECT hour AS minute, topic, site, expected, heard
FROM completeness_1h
WHERE {step:UInt32} >= 3600 AND hour >= toStartOfHour({start:DateTime('UTC')}) AND hour < {stop:DateTime('UTC')}
    AND toDate(hour) IN (SELECT date FROM days WHERE open = 0)
UNION ALL
SELECT minute, topic, site, expected, heard
FROM completeness(
    start = if({step:UInt32} < 3600, {start:DateTime('UTC')}, least(({first open of power_1m, utilization_1m, links_1m in completeness_1h}), greatest(toStartOfHour({start:DateTime('UTC')}), toStartOfDay({stop:DateTime('UTC')})))),
    stop = if({step:UInt32} < 3600, {stop:DateTime('UTC')}, toStartOfHour({stop:DateTime('UTC')} + INTERVAL 3599 SECOND)))
WHERE {step:UInt32} < 3600 OR toDate(minute) NOT IN (SELECT date FROM days WHERE open = 0)
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

CREATE OR REPLACE VIEW site_headroom AS
SELECT * FROM site_headroom_in_steps(start = {start:DateTime('UTC')}, stop = {stop:DateTime('UTC')}, step = 60)
COMMENT 'What each site of the catalogue has left, from start to stop, by the minute: see site_headroom_in_steps.';
