"""The embedded Kafka broker and ClickHouse server, and the supervisor of a local stack."""
