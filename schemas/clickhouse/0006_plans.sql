-- What is planned from the hourly tables. Series are named by metric, scope and subject: (it_power, site, horinger-1).
-- A partition is a day of demand or one issue of a plan: a run replaces its own whole (REPLACE PARTITION), and readers
-- never see half of it. Every issue is kept for a week (45 MB a day for a hundred series), that of midnight for 400 days,
-- counted from when it was made: a plan from a trace of long ago stays too.

CREATE TABLE IF NOT EXISTS demand_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour.' CODEC(DoubleDelta, ZSTD(1)),
    metric LowCardinality(String) COMMENT 'utility_power, it_power, accelerator_power, requests, input_tokens or output_tokens.',
    scope LowCardinality(String) COMMENT 'network, site or region.',
    subject LowCardinality(String) COMMENT 'The site or region; empty for the network.',
    unit LowCardinality(String) COMMENT 'Unit of value: W (mean over the hour), {request}/h or {token}/h.',
    value Nullable(Float64) COMMENT 'The demand, in unit; null where the hour is missing or partial, never 0 instead.',
    completeness Nullable(Float64) COMMENT 'Power: meters heard over meters expected. Tokens: share of requests whose tokens are known.',
    state LowCardinality(String) COMMENT 'measured; partial (something was heard, too little to be added up); missing.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (metric, scope, subject, hour)
COMMENT 'Demand by the hour, gaps marked: what forecasts are made from. Replaced a day at a time.';

CREATE TABLE IF NOT EXISTS forecasts
(
    issued DateTime('UTC') COMMENT 'The end of the data it stands on, and the first hour forecast. One issue an hour; the newest made counts.',
    made DateTime64(3, 'UTC') COMMENT 'When it was computed, by the planner''s clock.',
    metric LowCardinality(String) COMMENT 'As in demand_1h.',
    scope LowCardinality(String) COMMENT 'network, site or region.',
    subject LowCardinality(String) COMMENT 'The site or region; empty for the network.',
    unit LowCardinality(String) COMMENT 'Unit of p10, p50 and p90.',
    model LowCardinality(String) COMMENT 'seasonal_naive_24 or seasonal_naive_168 (the baseline), dynamic_optimized_theta, weekly_profile, theta_and_weekly_profile.',
    chosen Bool COMMENT 'Whether it had the least loss in the backtest: the one to use.',
    hour DateTime('UTC') COMMENT 'The hour forecast.' CODEC(DoubleDelta, ZSTD(1)),
    ahead_hours UInt16 COMMENT 'Hours from issued to the end of that hour, from 1. Unit: h.',
    p10 Float64 COMMENT 'Below it in one case of ten.',
    p50 Float64 COMMENT 'Below it in half of the cases.',
    p90 Float64 COMMENT 'Above it in one case of ten.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDDhhmmss(issued)
ORDER BY (metric, scope, subject, model, issued, hour)
TTL toDateTime(made) + INTERVAL 7 DAY DELETE WHERE toHour(issued) != 0, toDateTime(made) + INTERVAL 400 DAY
COMMENT 'Forecasts as they were issued, the baseline beside the model; their scores are in forecast_scores.';

CREATE TABLE IF NOT EXISTS forecast_scores
(
    issued DateTime('UTC') COMMENT 'The issue that it belongs to, as in forecasts.',
    made DateTime64(3, 'UTC') COMMENT 'When it was computed, by the planner''s clock.',
    metric LowCardinality(String) COMMENT 'As in demand_1h.',
    scope LowCardinality(String) COMMENT 'network, site or region.',
    subject LowCardinality(String) COMMENT 'The site or region; empty for the network.',
    unit LowCardinality(String) COMMENT 'Unit of pinball.',
    model LowCardinality(String) COMMENT 'The model scored; empty where nothing was forecast, then note says why.',
    chosen Bool COMMENT 'Whether it had the least loss.',
    baseline LowCardinality(String) COMMENT 'The better calibrated seasonal naive, which skill is against.',
    horizon_hours UInt16 COMMENT 'Scored over the first so many hours of each origin. Unit: h.',
    origins UInt16 COMMENT 'Held-out origins, a day apart.',
    scored_hours UInt32 COMMENT 'Hours scored, over all origins. Unit: h.',
    scored_share Float64 COMMENT 'Hours scored over hours that could be; equal for the baseline and every model admitted.',
    pinball Nullable(Float64) COMMENT 'Mean pinball loss over P10, P50, P90, in unit.',
    wql Nullable(Float64) COMMENT 'Weighted quantile loss: 2 x pinball over the mean absolute value; null where that is 0.',
    skill Nullable(Float64) COMMENT '1 - pinball over the baseline''s: above 0 is better than repeating the past.',
    coverage Nullable(Float64) COMMENT 'Share of held-out hours within P10 to P90; 0.8 would be perfect.',
    history_hours UInt32 COMMENT 'Hours of history it stands on. Unit: h.',
    completeness Nullable(Float64) COMMENT 'Share of those hours that are measured.',
    note String COMMENT 'What limits it, in words; empty if nothing does.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDDhhmmss(issued)
ORDER BY (metric, scope, subject, issued, model, horizon_hours)
TTL toDateTime(made) + INTERVAL 7 DAY DELETE WHERE toHour(issued) != 0, toDateTime(made) + INTERVAL 400 DAY
COMMENT 'The backtest beside each forecast: calibrated and scored on held-out origins, using only what was known at each.';

CREATE TABLE IF NOT EXISTS capacity_outlook
(
    issued DateTime('UTC') COMMENT 'The issue of the forecast that it stands on.',
    made DateTime64(3, 'UTC') COMMENT 'When it was computed, by the planner''s clock.',
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    resource LowCardinality(String) COMMENT 'utility_feed (power from the utility against the feed) or fleet (IT power against the rated power of the accelerators'' servers).',
    unit LowCardinality(String) COMMENT 'Unit of the amounts: W.',
    basis LowCardinality(String) COMMENT 'What is compared: utility_power, it_power, or it_power_times_pue where the feed has no meter.',
    capacity Float64 COMMENT 'What the catalogue says there is.',
    used Nullable(Float64) COMMENT 'Mean of the last measured hour; null where none of the last day is.',
    used_hour Nullable(DateTime('UTC')) COMMENT 'Which hour that was.',
    headroom Nullable(Float64) COMMENT 'capacity - used.',
    headroom_share Nullable(Float64) COMMENT 'headroom over capacity, 0 to 1; below 0 where it is exceeded. Unit: 1.',
    peak_p50 Nullable(Float64) COMMENT 'Highest P50 within the horizon.',
    peak_p90 Nullable(Float64) COMMENT 'Highest P90 within the horizon.',
    peak_hour Nullable(DateTime('UTC')) COMMENT 'The hour of the highest P90.',
    first_hour_p50 Nullable(DateTime('UTC')) COMMENT 'First hour whose P50 exceeds capacity; null if none within the horizon.',
    first_hour_p90 Nullable(DateTime('UTC')) COMMENT 'First hour whose P90 exceeds capacity; null if none within the horizon.',
    horizon_hours UInt16 COMMENT 'How far the forecast reaches; 0 = there is none. Unit: h.',
    coverage Nullable(Float64) COMMENT 'Of the forecast used, from its backtest.',
    completeness Nullable(Float64) COMMENT 'Share of the history''s hours that are measured.',
    note String COMMENT 'What limits it, in words; empty if nothing does.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDDhhmmss(issued)
ORDER BY (site, resource, issued)
TTL toDateTime(made) + INTERVAL 7 DAY DELETE WHERE toHour(issued) != 0, toDateTime(made) + INTERVAL 400 DAY
COMMENT 'Headroom of each site today and the first hour it runs out, at P50 and P90.';
