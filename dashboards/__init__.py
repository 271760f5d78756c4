"""The dashboards as code, their publication to Grafana, and a local board that draws the same JSON."""
