-- Raw tables: one a topic, one row an accepted event, named like the topic.
-- ORDER BY (topic_partition, time): the dedupe loads the identities of a partition and minute, and people read by time;
-- with few partitions the index skips just as well on time alone. Partitions are months of event time: a flush of many
-- years makes one part a month, and a retention drops by arrival, so that an imported trace of years ago stays.

CREATE TABLE IF NOT EXISTS power
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it: a collector, a gateway, a trace (CloudEvents source).',
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site itself.',
    meter LowCardinality(String) COMMENT 'The meter, unique within its site and node.',
    role LowCardinality(String) COMMENT 'What it measures: utility, generation, it, cooling, rack, chassis, node, psu, cpu, …',
    watts Nullable(Float64) COMMENT 'Active power; negative where a feed exports. Unit: W.',
    joules Nullable(Float64) COMMENT 'Energy counter, monotonic until it resets. Unit: J.',
    temperature_celsius Nullable(Float64) COMMENT 'Temperature. Unit: Cel.',
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: site, node, meter, time. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'A meter reading: all that one meter says at one time.';

CREATE TABLE IF NOT EXISTS utilization
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it: a collector, a gateway, a trace (CloudEvents source).',
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site itself.',
    device LowCardinality(String) COMMENT 'The accelerator within its node.',
    vendor LowCardinality(String) COMMENT 'Who made it.',
    model LowCardinality(String) COMMENT 'Its model, as in the catalogue where it is there.',
    devices Int64 COMMENT 'How many devices the sample stands for; totals weigh by it.' CODEC(T64, ZSTD(1)),
    utilization Nullable(Float64) COMMENT 'Share of time busy, 0 to 1, mean per device.',
    memory_used_bytes Nullable(Int64) COMMENT 'Memory in use, mean per device. Unit: By.',
    memory_limit_bytes Nullable(Int64) COMMENT 'Memory there is, per device. Unit: By.',
    temperature_celsius Nullable(Float64) COMMENT 'Temperature. Unit: Cel.',
    watts Nullable(Float64) COMMENT 'Power, mean per device. Unit: W.',
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: site, node, device, time. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'An accelerator sample, or a mean over several devices that the source doesn''t tell apart.';

CREATE TABLE IF NOT EXISTS tokens
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it (CloudEvents source).',
    id String COMMENT 'Unique within its source (CloudEvents id).',
    gateway LowCardinality(String) COMMENT 'The API gateway.',
    region LowCardinality(String) COMMENT 'Where the demand came from.',
    site LowCardinality(String) COMMENT 'Which site served it.',
    tenant LowCardinality(String) COMMENT 'The customer.',
    package LowCardinality(String) COMMENT 'The token package that pays.',
    provider LowCardinality(String) COMMENT 'The model''s provider.',
    model LowCardinality(String) COMMENT 'The model asked for.',
    requests Int64 COMMENT 'How many requests it stands for. Unit: {request}.' CODEC(T64, ZSTD(1)),
    input_tokens Nullable(Int64) COMMENT 'Prompt tokens, cached ones included; null = unknown. Unit: {token}.',
    output_tokens Nullable(Int64) COMMENT 'Generated tokens, reasoning included; null = unknown. Unit: {token}.',
    cache_read_tokens Nullable(Int64) COMMENT 'Part of the input read from a cache; null = unknown. Unit: {token}.',
    cache_creation_tokens Nullable(Int64) COMMENT 'Part of the input written to a cache; null = unknown. Unit: {token}.',
    reasoning_tokens Nullable(Int64) COMMENT 'Part of the output spent on reasoning; null = unknown. Unit: {token}.',
    duration_seconds Nullable(Float64) COMMENT 'From request to last token; of several requests their mean. Unit: s.',
    first_token_seconds Nullable(Float64) COMMENT 'From request to first token; of several requests their mean. Unit: s.',
    error_type LowCardinality(String) COMMENT 'Why it failed; empty for success.',
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: source, id. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'A finished gateway request, or usage of several that the source has aggregated.';

CREATE TABLE IF NOT EXISTS packages
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it (CloudEvents source).',
    id String COMMENT 'Unique within its source (CloudEvents id).',
    package LowCardinality(String) COMMENT 'The token package.',
    tenant LowCardinality(String) COMMENT 'Who owns it.',
    entry LowCardinality(String) COMMENT 'granted, topped_up, voided or expired.',
    tokens Int64 COMMENT 'How many tokens, never negative: the entry says which way. Unit: {token}.' CODEC(T64, ZSTD(1)),
    priority Int64 COMMENT 'Lower burns first.' CODEC(T64, ZSTD(1)),
    effective DateTime64(9, 'UTC') COMMENT 'From when it counts.' CODEC(Delta(8), ZSTD(1)),
    expiry Nullable(DateTime64(9, 'UTC')) COMMENT 'Until when; null = never ends.' CODEC(Delta(8), ZSTD(1)),
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: source, id. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'A ledger entry of a token package.';

CREATE TABLE IF NOT EXISTS rates
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it (CloudEvents source).',
    id String COMMENT 'Unique within its source (CloudEvents id).',
    model LowCardinality(String) COMMENT 'The model.',
    token_type LowCardinality(String) COMMENT 'input, output, cache_read, cache_creation or reasoning.',
    micro_tokens Int64 COMMENT 'Package tokens for a model token, in millionths. Unit: u{token}.' CODEC(T64, ZSTD(1)),
    effective DateTime64(9, 'UTC') COMMENT 'From when it counts.' CODEC(Delta(8), ZSTD(1)),
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: source, id. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'A conversion rate: how many package tokens one model token costs.';

CREATE TABLE IF NOT EXISTS capacity
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it (CloudEvents source).',
    id String COMMENT 'Unique within its source (CloudEvents id).',
    site LowCardinality(String) COMMENT 'The campus or edge node.',
    resource LowCardinality(String) COMMENT 'utility_feed (W), accelerators ({device}) or link (bit/s).',
    subject LowCardinality(String) COMMENT 'The accelerator model or the link; empty for the feed.',
    amount Int64 COMMENT 'The capacity from then on. Unit: by resource.' CODEC(T64, ZSTD(1)),
    allocated Nullable(Int64) COMMENT 'How much of it is promised; null = unknown. Unit: by resource.',
    status LowCardinality(String) COMMENT 'planned or actual.',
    effective DateTime64(9, 'UTC') COMMENT 'From when it counts.' CODEC(Delta(8), ZSTD(1)),
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: source, id. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'A dated step of a site''s capacity.';

CREATE TABLE IF NOT EXISTS links
(
    time DateTime64(9, 'UTC') COMMENT 'When it happened (event time), to the nanosecond where known.' CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who emitted it: a collector, a gateway, a trace (CloudEvents source).',
    link LowCardinality(String) COMMENT 'The link.',
    a_site LowCardinality(String) COMMENT 'One end.',
    z_site LowCardinality(String) COMMENT 'The other end.',
    a_to_z_bytes Nullable(Int64) COMMENT 'Bytes from a to z. Unit: By.',
    z_to_a_bytes Nullable(Int64) COMMENT 'Bytes from z to a. Unit: By.',
    capacity_bits_per_second Nullable(Int64) COMMENT 'What it can carry each way. Unit: bit/s.',
    latency_seconds Nullable(Float64) COMMENT 'One way. Unit: s.',
    rx_power_dbm Nullable(Float64) COMMENT 'Received optical power. Unit: dBm.',
    errors Nullable(Int64) COMMENT 'Errored frames. Unit: {error}.',
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message (LogAppendTime).' CODEC(Delta(8), ZSTD(1)),
    topic_partition UInt16 COMMENT 'The partition of the topic it came by.',
    offset Int64 COMMENT 'The offset of its message.' CODEC(Delta(8), ZSTD(1)),
    place UInt32 COMMENT 'Its place in the message, from 0.' CODEC(Delta(4), ZSTD(1)),
    identity FixedString(16) COMMENT 'xxh3-128 of its identity: link, time. Equal identity = the same event.',
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (topic_partition, time)
COMMENT 'An optical link sample; bytes and errors are those since the last sample (delta temporality).';
