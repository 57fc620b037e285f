"""Trials on Ray: a private one on this machine, or a cluster."""
