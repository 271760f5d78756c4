"""Plans and reports: Dagster over what ClickHouse holds."""
