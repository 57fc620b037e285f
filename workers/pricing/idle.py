"""How many pages lie idle in pools, over time: in their caches and rings."""

from typing import Any

import numpy as np

from pool_impl.jit import compiled

MOST_POOLS = 64

IDLE = np.dtype(
    [
        ("now_ps", "<i8"),  # start of the step that is taken
        ("cache_page_ps", "<i8"),
        ("ring_page_ps", "<i8"),
        ("settled_ps", "<i8", (MOST_POOLS,)),  # by pool: until when it has been added up
    ],
    align=True,
)
"""pages integrated over time, of all pools"""


@compiled()
def settle_pool(idle: Any, pool: Any, slots: Any) -> None:
    """The idle pages of a pool are about to change: add them up until now."""
    elapsed_ps = idle.now_ps - idle.settled_ps[pool.index]
    if elapsed_ps != 0:
        idle.settled_ps[pool.index] = idle.now_ps
        idle.cache_page_ps += pool.cache_count * elapsed_ps
        idle.ring_page_ps += _in_ring(pool, slots) * elapsed_ps


@compiled()
def _in_ring(pool: Any, slots: Any) -> int:
    """Live entries of a ring from its indices: the head never rests on a consumed slot, so a full ring and an
    empty one differ in what the head's slot holds."""
    live = pool.ring_prod - pool.ring_head
    if live < 0:
        live += pool.ring_size
    elif live == 0 and slots[pool.ring_base + pool.ring_head] != 0:
        live = pool.ring_size
    return int(live)
