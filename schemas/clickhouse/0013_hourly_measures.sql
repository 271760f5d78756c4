-- What the views energy, site_energy and completeness say, by the hour: made from them by dags/hourly_measures.py, a day
-- at a time, for they look at minutes and emitters' intervals and can't be added up from the rollups' hours. samples is
-- of the rollups that a row was made from: where it no longer adds up to theirs, the day is made anew.

CREATE TABLE IF NOT EXISTS energy_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site.',
    meter LowCardinality(String) COMMENT 'The meter.',
    role LowCardinality(String) COMMENT 'What it measures.',
    samples Int64 COMMENT 'Readings in it.',
    joules Float64 COMMENT 'Energy, as in the view energy. Unit: J.',
    seconds Float64 COMMENT 'Of how much of the hour; 0 for none. Unit: s.',
    method LowCardinality(String) COMMENT 'counter or power, as in the view energy; empty without energy.',
    PROJECTION by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, site, node, meter, role)
COMMENT 'Energy by meter. Hourly, made a day at a time from the view energy.';

CREATE TABLE IF NOT EXISTS site_energy_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    samples Int64 COMMENT 'Readings in it.',
    facility_joules Nullable(Float64) COMMENT 'Energy of the roles utility and generation. Unit: J.',
    it_joules Nullable(Float64) COMMENT 'Energy of the role it. Unit: J.',
    matched_facility_joules Float64 COMMENT 'facility_joules of the minutes in which both are known. Unit: J.',
    matched_it_joules Float64 COMMENT 'it_joules of the same minutes. Unit: J.',
    utility_watts_max Nullable(Float64) COMMENT 'Highest minute of the role utility. Unit: W.',
    utility_watts Float64 COMMENT 'Sum of its minutes: divide by utility_minutes for the mean. Unit: W.',
    utility_minutes UInt64 COMMENT 'Minutes with a power of the role utility.',
    PROJECTION by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, site)
COMMENT 'What interim PUE and headroom are made of, by site. Hourly, made a day at a time from the view site_energy.';

CREATE TABLE IF NOT EXISTS completeness_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    topic LowCardinality(String) COMMENT 'Event type of the emitters.',
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    samples Int64 COMMENT 'Samples in it.',
    expected UInt64 COMMENT 'Sum over its minutes of the emitters expected.',
    heard UInt64 COMMENT 'Sum over its minutes of the emitters heard.',
    PROJECTION by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, topic, site)
COMMENT 'Emitters heard and expected, by topic and site. Hourly, made a day at a time from the view completeness.';
