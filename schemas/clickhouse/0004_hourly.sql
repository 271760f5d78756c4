-- Hourly tables, rebuilt from the minutes for the days that changed and replaced a day at a time (REPLACE PARTITION), so
-- that readers never see a hole; hence partitions are days and one row is one hour and key, with nothing left to merge.

CREATE TABLE IF NOT EXISTS power_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site.',
    meter LowCardinality(String) COMMENT 'The meter.',
    role LowCardinality(String) COMMENT 'What it measures.',
    samples Int64 COMMENT 'Readings in it.',
    power_samples Int64 COMMENT 'Readings with a power.',
    milliwatts Int64 COMMENT 'Sum of the powers, mW: divide by power_samples for the mean.',
    temperature_samples Int64 COMMENT 'Readings with a temperature.',
    millicelsius Int64 COMMENT 'Sum of the temperatures, mCel.',
    watts_min Nullable(Float64) COMMENT 'Lowest power. Unit: W.',
    watts_max Nullable(Float64) COMMENT 'Highest power. Unit: W.',
    temperature_celsius_min Nullable(Float64) COMMENT 'Lowest temperature. Unit: Cel.',
    temperature_celsius_max Nullable(Float64) COMMENT 'Highest temperature. Unit: Cel.',
    joules_first Tuple(DateTime64(9, 'UTC'), Float64) COMMENT 'First counter reading, as (time, J); (end of time, 0) for none.',
    joules_last Tuple(DateTime64(9, 'UTC'), Float64) COMMENT 'Last counter reading, as (time, J); (epoch, 0) for none.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, site, node, meter, role)
COMMENT 'Meter readings by meter. Hourly, rebuilt a day at a time from the minutes.';

CREATE TABLE IF NOT EXISTS utilization_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server.',
    device LowCardinality(String) COMMENT 'The accelerator within its node.',
    vendor LowCardinality(String) COMMENT 'Who made it.',
    model LowCardinality(String) COMMENT 'Its model.',
    samples Int64 COMMENT 'Samples in it.',
    device_samples Int64 COMMENT 'Samples times the devices each stands for.',
    utilization_samples Int64 COMMENT 'Device samples with a utilization.',
    utilization_ppm Int64 COMMENT 'Sum of the utilizations, millionths.',
    memory_samples Int64 COMMENT 'Device samples with a memory use.',
    memory_used_bytes Int64 COMMENT 'Sum of the memory in use, By.',
    memory_limit_bytes Int64 COMMENT 'Sum of the memory there is, By, over the same samples where both are known.',
    power_samples Int64 COMMENT 'Device samples with a power.',
    milliwatts Int64 COMMENT 'Sum of the powers, mW.',
    temperature_samples Int64 COMMENT 'Device samples with a temperature.',
    millicelsius Int64 COMMENT 'Sum of the temperatures, mCel.',
    utilization_min Nullable(Float64) COMMENT 'Lowest utilization. Unit: 1.',
    utilization_max Nullable(Float64) COMMENT 'Highest utilization. Unit: 1.',
    watts_min Nullable(Float64) COMMENT 'Lowest power of a device. Unit: W.',
    watts_max Nullable(Float64) COMMENT 'Highest power of a device. Unit: W.',
    temperature_celsius_min Nullable(Float64) COMMENT 'Lowest temperature. Unit: Cel.',
    temperature_celsius_max Nullable(Float64) COMMENT 'Highest temperature. Unit: Cel.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, site, node, device, vendor, model)
COMMENT 'Accelerator samples by device; sums and sample counts weigh by how many devices a sample stands for. Hourly, rebuilt a day at a time from the minutes.';

CREATE TABLE IF NOT EXISTS tokens_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    site LowCardinality(String) COMMENT 'The site that served.',
    region LowCardinality(String) COMMENT 'Where the demand came from.',
    gateway LowCardinality(String) COMMENT 'The API gateway.',
    provider LowCardinality(String) COMMENT 'The model''s provider.',
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
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, site, region, gateway, provider, model)
COMMENT 'Gateway usage by where, what and who served. Hourly, rebuilt a day at a time from the minutes.';

CREATE TABLE IF NOT EXISTS usage_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'The customer.',
    package LowCardinality(String) COMMENT 'The token package that pays.',
    model LowCardinality(String) COMMENT 'The model.',
    samples Int64 COMMENT 'Events in it.',
    requests Int64 COMMENT 'Requests.',
    input_tokens Int64 COMMENT 'Prompt tokens, cached ones included, where known.',
    output_tokens Int64 COMMENT 'Generated tokens, reasoning included, where known.',
    cache_read_tokens Int64 COMMENT 'Part of the input read from a cache, where known.',
    cache_creation_tokens Int64 COMMENT 'Part of the input written to a cache, where known.',
    reasoning_tokens Int64 COMMENT 'Part of the output spent on reasoning, where known.',
    unknown_requests Int64 COMMENT 'Requests whose input or output tokens are unknown.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, tenant, package, model)
COMMENT 'Token usage by customer, package and model. Hourly, rebuilt a day at a time from the minutes.';

CREATE TABLE IF NOT EXISTS links_1h
(
    hour DateTime('UTC') COMMENT 'Start of the hour of event time.' CODEC(DoubleDelta, ZSTD(1)),
    link LowCardinality(String) COMMENT 'The link.',
    a_site LowCardinality(String) COMMENT 'One end.',
    z_site LowCardinality(String) COMMENT 'The other end.',
    samples Int64 COMMENT 'Samples in it.',
    a_to_z_bytes Int64 COMMENT 'Bytes from a to z, By.',
    z_to_a_bytes Int64 COMMENT 'Bytes from z to a, By.',
    errors Int64 COMMENT 'Errored frames.',
    capacity_samples Int64 COMMENT 'Samples with a capacity.',
    capacity_bits_per_second Int64 COMMENT 'Sum of the capacities, bit/s: divide by capacity_samples.',
    latency_samples Int64 COMMENT 'Samples with a latency.',
    latency_nanoseconds Int64 COMMENT 'Sum of the latencies, ns.',
    rx_power_samples Int64 COMMENT 'Samples with a received power.',
    rx_power_millidbm Int64 COMMENT 'Sum of the received powers, thousandths of dBm.',
    latency_seconds_min Nullable(Float64) COMMENT 'Lowest latency. Unit: s.',
    latency_seconds_max Nullable(Float64) COMMENT 'Highest latency. Unit: s.',
    rx_power_dbm_min Nullable(Float64) COMMENT 'Lowest received power. Unit: dBm.',
    rx_power_dbm_max Nullable(Float64) COMMENT 'Highest received power. Unit: dBm.',
    arrived_min DateTime64(3, 'UTC') COMMENT 'Earliest arrival of a sample in it.'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(hour)
ORDER BY (hour, link, a_site, z_site)
COMMENT 'Optical link samples by link. Hourly, rebuilt a day at a time from the minutes.';
