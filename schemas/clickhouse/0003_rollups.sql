-- One-minute rollups, written by the stream workers beside the raw rows. All sums are signed integers, so that no order of
-- adding changes them and a difference can be mended by appending it. The topic partition is part of the key: an owner
-- only ever adds to its own rows. ORDER BY minute first: every reader asks for a time range.

CREATE TABLE IF NOT EXISTS power_1m
(
    minute DateTime('UTC') COMMENT 'Start of the minute of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site.',
    meter LowCardinality(String) COMMENT 'The meter.',
    role LowCardinality(String) COMMENT 'What it measures.',
    topic_partition UInt16 COMMENT 'The partition of the topic: each owner adds up its own.',
    samples SimpleAggregateFunction(sum, Int64) COMMENT 'Readings in it.',
    power_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Readings with a power.',
    milliwatts SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the powers, mW: divide by power_samples for the mean.',
    temperature_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Readings with a temperature.',
    millicelsius SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the temperatures, mCel.',
    watts_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest power. Unit: W.',
    watts_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest power. Unit: W.',
    temperature_celsius_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest temperature. Unit: Cel.',
    temperature_celsius_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest temperature. Unit: Cel.',
    joules_first SimpleAggregateFunction(min, Tuple(DateTime64(9, 'UTC'), Float64)) COMMENT 'First counter reading, as (time, J); (end of time, 0) for none.',
    joules_last SimpleAggregateFunction(max, Tuple(DateTime64(9, 'UTC'), Float64)) COMMENT 'Last counter reading, as (time, J); (epoch, 0) for none.',
    arrived_min SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'Earliest arrival of a sample in it.',
    upto SimpleAggregateFunction(max, Int64) COMMENT 'Last offset of the newest flush in it; -1 in a row that mends a difference.',
    INDEX upto_range upto TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, site, node, meter, role, topic_partition)
COMMENT 'Meter readings by meter. One-minute partials: read with GROUP BY, never FINAL.';

CREATE TABLE IF NOT EXISTS utilization_1m
(
    minute DateTime('UTC') COMMENT 'Start of the minute of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server.',
    device LowCardinality(String) COMMENT 'The accelerator within its node.',
    vendor LowCardinality(String) COMMENT 'Who made it.',
    model LowCardinality(String) COMMENT 'Its model.',
    topic_partition UInt16 COMMENT 'The partition of the topic: each owner adds up its own.',
    samples SimpleAggregateFunction(sum, Int64) COMMENT 'Samples in it.',
    device_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Samples times the devices each stands for.',
    utilization_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Device samples with a utilization.',
    utilization_ppm SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the utilizations, millionths.',
    memory_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Device samples with a memory use.',
    memory_used_bytes SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the memory in use, By.',
    memory_limit_bytes SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the memory there is, By, over the same samples where both are known.',
    power_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Device samples with a power.',
    milliwatts SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the powers, mW.',
    temperature_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Device samples with a temperature.',
    millicelsius SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the temperatures, mCel.',
    utilization_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest utilization. Unit: 1.',
    utilization_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest utilization. Unit: 1.',
    watts_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest power of a device. Unit: W.',
    watts_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest power of a device. Unit: W.',
    temperature_celsius_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest temperature. Unit: Cel.',
    temperature_celsius_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest temperature. Unit: Cel.',
    arrived_min SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'Earliest arrival of a sample in it.',
    upto SimpleAggregateFunction(max, Int64) COMMENT 'Last offset of the newest flush in it; -1 in a row that mends a difference.',
    INDEX upto_range upto TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, site, node, device, vendor, model, topic_partition)
COMMENT 'Accelerator samples by device; sums and sample counts weigh by how many devices a sample stands for. One-minute partials: read with GROUP BY, never FINAL.';

CREATE TABLE IF NOT EXISTS tokens_1m
(
    minute DateTime('UTC') COMMENT 'Start of the minute of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The site that served.',
    region LowCardinality(String) COMMENT 'Where the demand came from.',
    gateway LowCardinality(String) COMMENT 'The API gateway.',
    provider LowCardinality(String) COMMENT 'The model''s provider.',
    model LowCardinality(String) COMMENT 'The model.',
    topic_partition UInt16 COMMENT 'The partition of the topic: each owner adds up its own.',
    samples SimpleAggregateFunction(sum, Int64) COMMENT 'Events in it.',
    requests SimpleAggregateFunction(sum, Int64) COMMENT 'Requests.',
    errors SimpleAggregateFunction(sum, Int64) COMMENT 'Requests that failed.',
    input_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests SimpleAggregateFunction(sum, Int64) COMMENT 'Requests whose input or output tokens are unknown.',
    duration_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Requests with a duration.',
    duration_microseconds SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the durations, us.',
    first_token_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Requests with a time to first token.',
    first_token_microseconds SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the times to first token, us.',
    duration_histogram SimpleAggregateFunction(sumMap, Map(Int16, Int64)) COMMENT 'Requests by duration bucket: bucket k holds 2^(k/4) to 2^((k+1)/4) us.',
    first_token_histogram SimpleAggregateFunction(sumMap, Map(Int16, Int64)) COMMENT 'Requests by time-to-first-token bucket, as in duration_histogram.',
    arrived_min SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'Earliest arrival of a sample in it.',
    upto SimpleAggregateFunction(max, Int64) COMMENT 'Last offset of the newest flush in it; -1 in a row that mends a difference.',
    INDEX upto_range upto TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, site, region, gateway, provider, model, topic_partition)
COMMENT 'Gateway usage by where, what and who served. One-minute partials: read with GROUP BY, never FINAL.';

CREATE TABLE IF NOT EXISTS usage_1m
(
    minute DateTime('UTC') COMMENT 'Start of the minute of event time.' CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'The customer.',
    package LowCardinality(String) COMMENT 'The token package that pays.',
    model LowCardinality(String) COMMENT 'The model.',
    topic_partition UInt16 COMMENT 'The partition of the topic: each owner adds up its own.',
    samples SimpleAggregateFunction(sum, Int64) COMMENT 'Events in it.',
    requests SimpleAggregateFunction(sum, Int64) COMMENT 'Requests.',
    input_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens SimpleAggregateFunction(sum, Int64) COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests SimpleAggregateFunction(sum, Int64) COMMENT 'Requests whose input or output tokens are unknown.',
    arrived_min SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'Earliest arrival of a sample in it.',
    upto SimpleAggregateFunction(max, Int64) COMMENT 'Last offset of the newest flush in it; -1 in a row that mends a difference.',
    INDEX upto_range upto TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, tenant, package, model, topic_partition)
COMMENT 'Token usage by customer, package and model. One-minute partials: read with GROUP BY, never FINAL.';

CREATE TABLE IF NOT EXISTS links_1m
(
    minute DateTime('UTC') COMMENT 'Start of the minute of event time.' CODEC(DoubleDelta, ZSTD(1)),
    link LowCardinality(String) COMMENT 'The link.',
    a_site LowCardinality(String) COMMENT 'One end.',
    z_site LowCardinality(String) COMMENT 'The other end.',
    topic_partition UInt16 COMMENT 'The partition of the topic: each owner adds up its own.',
    samples SimpleAggregateFunction(sum, Int64) COMMENT 'Samples in it.',
    a_to_z_bytes SimpleAggregateFunction(sum, Int64) COMMENT 'Bytes from a to z, By.',
    z_to_a_bytes SimpleAggregateFunction(sum, Int64) COMMENT 'Bytes from z to a, By.',
    errors SimpleAggregateFunction(sum, Int64) COMMENT 'Errored frames.',
    capacity_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Samples with a capacity.',
    capacity_bits_per_second SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the capacities, bit/s: divide by capacity_samples.',
    latency_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Samples with a latency.',
    latency_nanoseconds SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the latencies, ns.',
    rx_power_samples SimpleAggregateFunction(sum, Int64) COMMENT 'Samples with a received power.',
    rx_power_millidbm SimpleAggregateFunction(sum, Int64) COMMENT 'Sum of the received powers, thousandths of dBm.',
    latency_seconds_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest latency. Unit: s.',
    latency_seconds_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest latency. Unit: s.',
    rx_power_dbm_min SimpleAggregateFunction(min, Nullable(Float64)) COMMENT 'Lowest received power. Unit: dBm.',
    rx_power_dbm_max SimpleAggregateFunction(max, Nullable(Float64)) COMMENT 'Highest received power. Unit: dBm.',
    arrived_min SimpleAggregateFunction(min, DateTime64(3, 'UTC')) COMMENT 'Earliest arrival of a sample in it.',
    upto SimpleAggregateFunction(max, Int64) COMMENT 'Last offset of the newest flush in it; -1 in a row that mends a difference.',
    INDEX upto_range upto TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, link, a_site, z_site, topic_partition)
COMMENT 'Optical link samples by link. One-minute partials: read with GROUP BY, never FINAL.';
