-- What is expected and what things are. The catalogue's tables are filled from the data files beside catalog.py by
-- `wattstream migrate`; emitters are registered by whoever sends (the simulator, an import).

CREATE TABLE IF NOT EXISTS emitters
(
    topic LowCardinality(String) COMMENT 'The topic it emits to, by its short name: power, utilization, links, …',
    site LowCardinality(String) COMMENT 'The campus or edge node; of a link its a end.',
    node LowCardinality(String) COMMENT 'The server; empty for a meter of the site.',
    emitter String COMMENT 'The meter, device or link.',
    interval_seconds UInt32 COMMENT 'How often it should be heard, s.',
    since DateTime('UTC') COMMENT 'From when it is expected.',
    until DateTime('UTC') COMMENT 'Until when it is expected; 2106-02-07 for no end.',
    maintenance Bool DEFAULT false COMMENT 'Excused: neither expected nor missed.',
    registered DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'The newest registration of an emitter and since counts.'
)
ENGINE = ReplacingMergeTree(registered)
ORDER BY (topic, site, node, emitter, since)
COMMENT 'Who is expected to be heard, how often, since when, until when.';
