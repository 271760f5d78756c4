-- How parts are written and merged, of the tables that every flush adds a part to.
--
-- Below 100 MB (before compression) a part is one file of all columns instead of two files a column: an insert of 120,000
-- tokens cost 100 ms as wide parts and 52 ms so. Merged parts are larger, and wide.
-- Twelve parts of a size are merged into one, not five: a row is written anew at every twelvefold instead of fivefold.

ALTER TABLE power
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE utilization
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE tokens
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE packages
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE rates
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE capacity
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE links
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE power_1m
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE utilization_1m
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE tokens_1m
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE usage_1m
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;

ALTER TABLE links_1m
    MODIFY SETTING min_bytes_for_wide_part = 100000000, merge_selector_base = 12;
