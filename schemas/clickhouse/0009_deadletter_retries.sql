-- Written by `wattstream deadletters retry`, once the broker has taken the message: a retry that died before is done again.
CREATE TABLE IF NOT EXISTS deadletter_retries
(
    topic LowCardinality(String) COMMENT 'The topic of the dead letter, and of what was sent.',
    topic_partition UInt16 COMMENT 'The partition of both.',
    offset Int64 COMMENT 'The dead letter''s offset.',
    place UInt32 COMMENT 'The dead letter''s place in its message.',
    arrived DateTime64(3, 'UTC') COMMENT 'The dead letter''s arrival: a topic made anew counts its offsets from 0 again.',
    retried DateTime64(3, 'UTC') COMMENT 'When the broker took what was sent.',
    new_offset Int64 COMMENT 'The offset it has there; where it fails again, the one of the new dead letter.'
)
ENGINE = MergeTree
ORDER BY (topic, topic_partition, offset, place)
COMMENT 'Dead letters that were sent again.';
