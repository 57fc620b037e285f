"""What is kept of packets and pages while a trial runs: who holds what, since when, and histograms."""
