-- 200,000 accelerators of 128 GiB are 2.7e16 By: as Int64 their sum would overflow after 340 samples, within an hour.
ALTER TABLE utilization_1m
    MODIFY COLUMN memory_used_bytes SimpleAggregateFunction(sum, Int128),
    MODIFY COLUMN memory_limit_bytes SimpleAggregateFunction(sum, Int128);

ALTER TABLE utilization_1h
    MODIFY COLUMN memory_used_bytes Int128,
    MODIFY COLUMN memory_limit_bytes Int128;
