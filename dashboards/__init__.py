"""Dashboards as code, and the local board that draws them."""
