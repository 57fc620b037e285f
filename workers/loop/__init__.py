"""The event loop: whose turn it is, and what happens to a device meanwhile."""
