"""The event loop, and what happens to a device meanwhile."""
