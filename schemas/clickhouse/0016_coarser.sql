-- What dashboards show of weeks and months has fewer keys than the rollups: of 90 days of the simulated network tokens_1h
-- has 22 million rows, region_tokens_1h eight, region_tokens_1d 800,000. Each is made from a finer one by dags/hourly.py.
-- Those by the day have a part a month: of 94 parts alone it takes 45 ms to read anything, 5 of four.

CREATE TABLE IF NOT EXISTS site_tokens_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The site that served.',
    samples Int64 COMMENT 'Events in it.',
    requests Int64 COMMENT 'Requests.',
    errors Int64 COMMENT 'Requests that failed.',
    input_tokens Int64 COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens Int64 COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens Int64 COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens Int64 COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens Int64 COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests Int64 COMMENT 'Requests whose input or output tokens are unknown.',
    duration_samples Int64 COMMENT 'Requests with a duration.',
    duration_microseconds Int64 COMMENT 'Sum of the durations, us.',
    first_token_samples Int64 COMMENT 'Requests with a time to first token.',
    first_token_microseconds Int64 COMMENT 'Sum of the times to first token, us.',
    duration_histogram Map(Int16, Int64) COMMENT 'Requests by duration bucket: bucket k holds 2^(k/4) to 2^((k+1)/4) us.',
    first_token_histogram Map(Int16, Int64) COMMENT 'Requests by time-to-first-token bucket, as in duration_histogram.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.',
    PROJECTION by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, site)
COMMENT 'Gateway usage by serving site, hourly. Rebuilt a day at a time.';

CREATE TABLE IF NOT EXISTS region_tokens_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    region LowCardinality(String) COMMENT 'Where the demand came from.',
    model LowCardinality(String) COMMENT 'The model.',
    samples Int64 COMMENT 'Events in it.',
    requests Int64 COMMENT 'Requests.',
    errors Int64 COMMENT 'Requests that failed.',
    input_tokens Int64 COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens Int64 COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens Int64 COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens Int64 COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens Int64 COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests Int64 COMMENT 'Requests whose input or output tokens are unknown.',
    duration_samples Int64 COMMENT 'Requests with a duration.',
    duration_microseconds Int64 COMMENT 'Sum of the durations, us.',
    first_token_samples Int64 COMMENT 'Requests with a time to first token.',
    first_token_microseconds Int64 COMMENT 'Sum of the times to first token, us.',
    duration_histogram Map(Int16, Int64) COMMENT 'Requests by duration bucket: bucket k holds 2^(k/4) to 2^((k+1)/4) us.',
    first_token_histogram Map(Int16, Int64) COMMENT 'Requests by time-to-first-token bucket, as in duration_histogram.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.',
    PROJECTION by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, region, model)
COMMENT 'Gateway usage by region of demand and model, hourly. Rebuilt a day at a time.';

CREATE TABLE IF NOT EXISTS region_tokens_1d
(
    day DateTime('UTC') COMMENT 'Start of the day of event time.' CODEC(DoubleDelta, ZSTD(1)),
    region LowCardinality(String) COMMENT 'Where the demand came from.',
    model LowCardinality(String) COMMENT 'The model.',
    samples Int64 COMMENT 'Events in it.',
    requests Int64 COMMENT 'Requests.',
    errors Int64 COMMENT 'Requests that failed.',
    input_tokens Int64 COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens Int64 COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens Int64 COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens Int64 COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens Int64 COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests Int64 COMMENT 'Requests whose input or output tokens are unknown.',
    duration_samples Int64 COMMENT 'Requests with a duration.',
    duration_microseconds Int64 COMMENT 'Sum of the durations, us.',
    first_token_samples Int64 COMMENT 'Requests with a time to first token.',
    first_token_microseconds Int64 COMMENT 'Sum of the times to first token, us.',
    duration_histogram Map(Int16, Int64) COMMENT 'Requests by duration bucket: bucket k holds 2^(k/4) to 2^((k+1)/4) us.',
    first_token_histogram Map(Int16, Int64) COMMENT 'Requests by time-to-first-token bucket, as in duration_histogram.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.',
    PROJECTION by_day (SELECT toDate(day), sum(samples) GROUP BY toDate(day))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, region, model)
COMMENT 'Gateway usage by region of demand and model, daily. Rebuilt a month at a time.';

CREATE TABLE IF NOT EXISTS customer_usage_1d
(
    day DateTime('UTC') COMMENT 'Start of the day of event time.' CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'The customer.',
    model LowCardinality(String) COMMENT 'The model.',
    samples Int64 COMMENT 'Events in it.',
    requests Int64 COMMENT 'Requests.',
    input_tokens Int64 COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens Int64 COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens Int64 COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens Int64 COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens Int64 COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests Int64 COMMENT 'Requests whose input or output tokens are unknown.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.',
    PROJECTION by_day (SELECT toDate(day), sum(samples) GROUP BY toDate(day))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, tenant, model)
COMMENT 'Token usage by customer and model, daily. Rebuilt a month at a time.';

CREATE TABLE IF NOT EXISTS package_usage_1d
(
    day DateTime('UTC') COMMENT 'Start of the day of event time.' CODEC(DoubleDelta, ZSTD(1)),
    package LowCardinality(String) COMMENT 'The token package that pays.',
    samples Int64 COMMENT 'Events in it.',
    requests Int64 COMMENT 'Requests.',
    input_tokens Int64 COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens Int64 COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens Int64 COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens Int64 COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens Int64 COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests Int64 COMMENT 'Requests whose input or output tokens are unknown.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.',
    PROJECTION by_day (SELECT toDate(day), sum(samples) GROUP BY toDate(day))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, package)
COMMENT 'Token usage by package, daily. Rebuilt a month at a time.';
