"""Results and the farm's own health as Prometheus metrics: served, or written to files."""
