"""The machine that this runs on: what its operations cost, and the pool under real load on it.

Nothing here takes part in a simulated trial, so it is not part of the model digest.
:mod:`workers.host.clock` is the only module below the farm that looks at a clock.
"""
