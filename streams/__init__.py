"""Kafka to ClickHouse: the way of an event."""
