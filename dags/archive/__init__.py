"""The log in files, so that it outlives Kafka's retention. Only assets.py needs Dagster."""
