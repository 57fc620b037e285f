"""A plan's trials into a run's records, on any executor."""
