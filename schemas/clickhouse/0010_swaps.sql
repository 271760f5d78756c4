-- Written by `wattstream replay --swap`: what is to be exchanged is written down first, so that a crash in between can be
-- resumed, and no worker starts a partition while some tables are exchanged and others are not.
CREATE TABLE IF NOT EXISTS swaps
(
    swap UUID COMMENT 'The swap.',
    replayed LowCardinality(String) COMMENT 'The database whose tables take the place of ours.',
    tables Array(Tuple(name String, ours UUID, theirs UUID)) COMMENT 'What is exchanged, with the tables'' ids before.',
    phase LowCardinality(String) COMMENT 'begun; then done, or abandoned before anything was exchanged.',
    at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When.'
)
ENGINE = MergeTree
ORDER BY (swap, at)
COMMENT 'Exchanges of all tables for those of a replay.';
