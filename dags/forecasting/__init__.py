"""Forecasting of hourly series: pure functions of arrays, without a clock or a database."""
