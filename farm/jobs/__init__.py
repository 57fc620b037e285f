"""Runs submitted to a cluster as Ray jobs, and their files back."""
