"""Linux's page_pool and skb page recycling, state for state as a real kernel does it.

The names below are the API for Python; ``pool_impl.api`` and ``pool_impl.api_skb`` describe it.
Those that need the compiler are loaded when first used, so that importing ``pool_impl.release`` or a
configuration costs none.
"""

from typing import TYPE_CHECKING, Any

from pool_impl.errors import CreateError, Leak, LeakError, PoolError
from pool_impl.layout import FLAG_DMA_MAP, FLAG_DMA_SYNC_DEV, FLAG_PAGE_FRAG

if TYPE_CHECKING:
    from pool_impl.api import Page, PagePool
    from pool_impl.api_skb import Frag, Skb
    from pool_impl.pool import PoolParams

__all__ = [
    "FLAG_DMA_MAP",
    "FLAG_DMA_SYNC_DEV",
    "FLAG_PAGE_FRAG",
    "CreateError",
    "Frag",
    "Leak",
    "LeakError",
    "Page",
    "PagePool",
    "PoolError",
    "PoolParams",
    "Skb",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pool_impl' has no attribute {name!r}")
    from pool_impl import api, api_skb

    return getattr(api_skb if name in ("Frag", "Skb") else api, name)
