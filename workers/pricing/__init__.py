"""From what happens to the time it takes: caches, calls, DMA and the observer that adds it up."""
