-- Sums that each part of a rollup holds beside its rows, written and merged with it, so that they are right whenever the
-- rows are. Merging adds rows up, so a merge makes the sums anew ('rebuild').
--
-- by_package: what is left in a package needs its use of all time: some rows a package and part are read for it instead
-- of every minute there ever was. by_day: on which days an hourly table has all that the minutes have; the views
-- *_in_steps read those days by the hour.

ALTER TABLE power_1m
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE power_1m
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(minute), sum(samples) GROUP BY toDate(minute));

ALTER TABLE power_1m
    MATERIALIZE PROJECTION by_day;

ALTER TABLE power_1h
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour));

ALTER TABLE power_1h
    MATERIALIZE PROJECTION by_day;

ALTER TABLE utilization_1m
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE utilization_1m
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(minute), sum(samples) GROUP BY toDate(minute));

ALTER TABLE utilization_1m
    MATERIALIZE PROJECTION by_day;

ALTER TABLE utilization_1h
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour));

ALTER TABLE utilization_1h
    MATERIALIZE PROJECTION by_day;

ALTER TABLE tokens_1m
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE tokens_1m
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(minute), sum(samples) GROUP BY toDate(minute));

ALTER TABLE tokens_1m
    MATERIALIZE PROJECTION by_day;

ALTER TABLE tokens_1h
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour));

ALTER TABLE tokens_1h
    MATERIALIZE PROJECTION by_day;

ALTER TABLE usage_1m
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE usage_1m
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(minute), sum(samples) GROUP BY toDate(minute));

ALTER TABLE usage_1m
    MATERIALIZE PROJECTION by_day;

ALTER TABLE usage_1h
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour));

ALTER TABLE usage_1h
    MATERIALIZE PROJECTION by_day;

ALTER TABLE links_1m
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE links_1m
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(minute), sum(samples) GROUP BY toDate(minute));

ALTER TABLE links_1m
    MATERIALIZE PROJECTION by_day;

ALTER TABLE links_1h
    ADD PROJECTION IF NOT EXISTS by_day (SELECT toDate(hour), sum(samples) GROUP BY toDate(hour));

ALTER TABLE links_1h
    MATERIALIZE PROJECTION by_day;

ALTER TABLE usage_1m
    ADD PROJECTION IF NOT EXISTS by_package (SELECT package, sum(input_tokens), sum(output_tokens), max(minute) GROUP BY package);

ALTER TABLE usage_1m
    MATERIALIZE PROJECTION by_package;
