-- As in 0014_steps.sql, by fewer keys: what dashboards ask of weeks and months.

CREATE OR REPLACE VIEW site_tokens_in_steps AS
{steps of tokens_1m in site_tokens_1h without region, gateway, provider, model}
COMMENT 'Gateway usage by serving site, from start to stop, for steps of so many seconds, with the begin of a minute, an hour or a day as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read by the hour where that is complete. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW region_tokens_in_steps AS
{steps of tokens_1m in region_tokens_1h, region_tokens_1d without site, gateway, provider}
COMMENT 'Gateway usage by region of demand and model, from start to stop, for steps of so many seconds, with the begin of a minute, an hour or a day as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read by the hour where that is complete; with 86400 or more, days that it holds whole are read by the day. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW customer_usage_in_steps AS
{steps of usage_1m in usage_1h, customer_usage_1d without package}
COMMENT 'Token usage by customer and model, from start to stop, for steps of so many seconds, with the begin of a minute, an hour or a day as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read by the hour where that is complete; with 86400 or more, days that it holds whole are read by the day. Partials: read with GROUP BY.';

CREATE OR REPLACE VIEW package_usage_in_steps AS
{steps of usage_1m in usage_1h, package_usage_1d without tenant, model}
COMMENT 'Token usage by package, from start to stop, for steps of so many seconds, with the begin of a minute, an hour or a day as minute. With a step of 3600 or more the range is taken to whole hours, start down and stop up, and read by the hour where that is complete; with 86400 or more, days that it holds whole are read by the day. Partials: read with GROUP BY.';
