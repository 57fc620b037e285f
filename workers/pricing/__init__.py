"""From what happens to the time it takes: caches, calls, DMA, nodes and the observer that adds it up."""
