"""How fast pool and farm are, and the pool under real threads."""
