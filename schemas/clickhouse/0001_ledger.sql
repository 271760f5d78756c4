-- Who owns a topic partition, and which of its offsets are done: what every start of a partition goes by.

CREATE TABLE IF NOT EXISTS claims
(
    topic LowCardinality(String) COMMENT 'The Kafka topic.',
    topic_id LowCardinality(String) COMMENT 'Kafka''s id of the topic: a topic made anew has another.',
    topic_partition UInt16 COMMENT 'The partition of the topic.',
    epoch UInt64 COMMENT 'Counts the takes of the partition; the highest owns it.',
    owner UUID COMMENT 'The worker; breaks a tie of two takes at the same epoch.',
    claimed DateTime64(3, 'UTC') COMMENT 'When, by the worker''s clock (for people only: nothing depends on it).'
)
ENGINE = MergeTree
ORDER BY (topic, topic_partition, epoch, owner)
COMMENT 'Each take of a partition by a worker. An insert is refused when a higher claim than its own exists.';

CREATE TABLE IF NOT EXISTS ingest_ranges
(
    topic LowCardinality(String) COMMENT 'The Kafka topic.',
    topic_id LowCardinality(String) COMMENT 'Kafka''s id of the topic.',
    topic_partition UInt16 COMMENT 'The partition of the topic.',
    first Int64 COMMENT 'First offset of the range.',
    last Int64 COMMENT 'Last offset of the range, inclusive; the next range begins right after it.',
    messages Int64 COMMENT 'Messages read in the range (offsets may have gaps).',
    events Int64 COMMENT 'Events found in them: rows + duplicates + rejects.',
    rows Int64 COMMENT 'Events written to the raw table.',
    duplicates Int64 COMMENT 'Events whose identity was seen before.',
    rejects Int64 COMMENT 'Events (or whole messages) that became dead letters.',
    checksum UInt64 COMMENT 'Sum modulo 2^64 of the low halves of the identities of the rows.',
    epoch UInt64 COMMENT 'The claim under which it was written.',
    owner UUID COMMENT 'The worker that wrote it.',
    arrived DateTime64(3, 'UTC') COMMENT 'Arrival of its last message.',
    done DateTime64(3, 'UTC') COMMENT 'When its rows could be queried, by the worker''s clock.'
)
ENGINE = MergeTree
ORDER BY (topic, topic_partition, first)
COMMENT 'Ranges of offsets whose events are in the raw table and the rollups, for good.';

CREATE TABLE IF NOT EXISTS deadletters
(
    topic LowCardinality(String) COMMENT 'Where it was read.',
    topic_partition UInt16 COMMENT 'The partition of the topic.',
    offset Int64 COMMENT 'The offset of its message.',
    place UInt32 COMMENT 'Its place in the message, from 0.',
    arrived DateTime64(3, 'UTC') COMMENT 'When the broker took its message.',
    reason LowCardinality(String) COMMENT 'Why it could not be used, one of few.',
    detail String COMMENT 'The particulars.',
    content_type LowCardinality(String) COMMENT 'The message''s content-type header; empty if it had none.',
    key String COMMENT 'The message''s key.',
    payload String COMMENT 'The event''s bytes; of an Arrow batch its row, as JSON.' CODEC(ZSTD(3)),
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(arrived)
ORDER BY (topic, topic_partition, offset, place)
COMMENT 'Events that could not be used, with their bytes, position and reason.';

CREATE TABLE IF NOT EXISTS audits
(
    topic LowCardinality(String) COMMENT 'The Kafka topic.',
    topic_partition UInt16 COMMENT 'The partition of the topic.',
    subject LowCardinality(String) COMMENT 'The table found different.',
    found DateTime64(3, 'UTC') COMMENT 'When.',
    expected Int64 COMMENT 'Rows or samples there should be.',
    present Int64 COMMENT 'Rows or samples there were.',
    mended Bool COMMENT 'Whether the difference was appended.',
    detail String COMMENT 'The particulars.'
)
ENGINE = MergeTree
ORDER BY (topic, topic_partition, found)
COMMENT 'Differences that the audit found between ledger, raw tables and rollups.';
