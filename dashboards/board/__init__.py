"""A local page that draws the dashboards' JSON from the same queries."""
