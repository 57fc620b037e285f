"""Receive-side scaling: the hash of a packet's addresses and ports, and the table from hash to queue."""

from typing import Any

from pool_impl.layout import words_of

KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
"""of Microsoft's "Verifying the RSS Hash Calculation", which many drivers have as their default"""

HASH_BITS = 31
"""what is kept of a hash: of a NIC's 32 bits all but the top one, so that none is negative. Queues go by
low bits"""
HASH_MASK = (1 << HASH_BITS) - 1

TABLE_ENTRIES = 128
"""of the indirection table, a power of two: ixgbe's and the default of most drivers"""


def toeplitz(data: bytes, key: bytes = KEY) -> int:
    """The 32-bit Toeplitz hash, as NICs compute it: for each set bit of the data, the 32 bits of the key that
    start at the same place.

    Args:
        data: source address, destination address, source port, destination port, in network order.
        key: at least 4 bytes longer than the data.
    """
    bits = 8 * len(data)
    window = int.from_bytes(key[: len(data) + 4], "big")
    value = int.from_bytes(data, "big")
    found = 0
    for place in range(bits):
        if value >> (bits - 1 - place) & 1:
            found ^= window >> (bits - place)
    return found & 0xFFFFFFFF


def flow_hash(data: bytes) -> int:
    """Hash of a packet as the farm keeps it: 31 bits of :func:`toeplitz`; 0 of nothing."""
    return toeplitz(data) & HASH_MASK


def indirection(queues: int) -> Any:
    """Queue by entry of the indirection table, round robin as Linux's ethtool_rxfh_indir_default."""
    return words_of([entry % queues for entry in range(TABLE_ENTRIES)])
