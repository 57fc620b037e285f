"""From records, files of samples or a host's counters to an answer."""
