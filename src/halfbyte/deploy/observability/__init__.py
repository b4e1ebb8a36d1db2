"""What Prometheus scrapes, records and alerts on, and what Grafana shows."""
