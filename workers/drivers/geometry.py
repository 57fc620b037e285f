"""What the buffers of each receive pattern look like: for setting up a trial."""

from typing import NamedTuple

from pool_impl.layout import FLAG_PAGE_FRAG, MAX_SKB_FRAGS, NET_SKB_PAD, SHARED_INFO_BYTES, SKB_BYTES
from pool_impl.page_frag import LEAST_BLOCK_BYTES
from pool_impl.release import rules_of
from pool_impl.skb import SMALLEST_PAGE_HEAD_BYTES
from workers.config import TrialConfig
from workers.device.nic import HEADER_BUFFER_BYTES
from workers.drivers.gather import HEAD_BYTES, HEADERS_BYTES
from workers.drivers.page import HEADROOM_BYTES
from workers.fields.derived import BESIDE_DATA_BYTES, SLAB_FRAME_BYTES, SPLIT_MODELS, keeps_by_reference
from workers.profiles.hardware import page_bytes
from workers.state import (
    FRAGMENTS,
    HEADER_SPLIT,
    KEPT_PAGES,
    OWN_FRAGMENTS,
    OWN_KEPT_PAGES,
    OWN_PAGES,
    PAGE_ALONE,
    PAGES,
    UNIT_BYTES,
)

USUAL_COPYBREAK_BYTES = {"fragments": 256}
"""what the modelled driver copies (hns3, spec 7.3); others copy nothing"""

COPIED_TRUESIZE_BYTES = SMALLEST_PAGE_HEAD_BYTES + SKB_BYTES
"""least that a copied packet counts against a socket's limit"""


class Geometry(NamedTuple):
    """Buffers of one trial's receive queues; sizes in bytes."""

    pattern: int
    """of :mod:`workers.state`"""
    writable: int
    """what the device may write to one"""
    taken: int
    """what one takes of its page"""
    headroom: int
    """from a page's start to where the device may write first"""
    synced: int
    """most that one sync for the device covers"""
    flags: int
    """of the pool, beside those for DMA"""
    copybreak: int
    """packets up to this are copied out of their buffer"""
    least_truesize: int
    """of a packet, against a socket's limit"""
    most_buffers: int
    """of a packet"""
    block_bytes: int
    """that buffers are cut from"""
    beside: int = 0
    """what each descriptor has of pages in whole beside that"""
    split: int = 0
    """headers of a packet that go to a buffer of their own"""

    @property
    def units(self) -> int:
        """Of pages, for a descriptor."""
        return (self.taken + self.beside) // UNIT_BYTES

    @property
    def keeps_pages(self) -> bool:
        """Whether the driver keeps a page until its last buffer has been used."""
        return self.pattern in (KEPT_PAGES, OWN_KEPT_PAGES)

    @property
    def part_bytes_shift(self) -> int:
        """Of parts of a page that no two buffers share."""
        return self.taken.bit_length() - 1

    @property
    def parts_shift(self) -> int:
        return (self.block_bytes.bit_length() - 1) - self.part_bytes_shift


def geometry_of(config: TrialConfig, largest_frame_bytes: int) -> Geometry:
    """Buffers for a trial whose largest packet has so many bytes."""
    driver = config.driver
    page = page_bytes(config)
    copybreak = driver.copybreak_bytes
    if isinstance(copybreak, str):
        copybreak = USUAL_COPYBREAK_BYTES.get(driver.model, 0) if driver.skb_head == "buffer" else HEAD_BYTES
    if driver.model == "fragments":
        return Geometry(
            pattern=FRAGMENTS,
            writable=driver.buffer_bytes,
            taken=driver.buffer_bytes,
            headroom=0,
            synced=page,
            flags=_fragment_flag(config),
            copybreak=copybreak,
            least_truesize=COPIED_TRUESIZE_BYTES,
            most_buffers=MAX_SKB_FRAGS,
            block_bytes=page,
        )
    if driver.model == "slab":
        writable = SLAB_FRAME_BYTES[driver.buffer_bytes]
        return Geometry(
            pattern=OWN_FRAGMENTS,
            writable=writable,
            taken=NET_SKB_PAD + writable + SHARED_INFO_BYTES,
            headroom=NET_SKB_PAD,
            synced=writable,
            flags=0,
            copybreak=copybreak,
            least_truesize=COPIED_TRUESIZE_BYTES,
            most_buffers=1 + MAX_SKB_FRAGS,
            block_bytes=max(LEAST_BLOCK_BYTES, page),
        )
    if driver.model == "header-split":
        return Geometry(
            pattern=HEADER_SPLIT,
            writable=page,
            taken=NET_SKB_PAD + HEADER_BUFFER_BYTES + SHARED_INFO_BYTES,
            headroom=0,
            synced=page,
            flags=0,
            copybreak=0,
            least_truesize=NET_SKB_PAD + HEADER_BUFFER_BYTES + SHARED_INFO_BYTES + SKB_BYTES,
            most_buffers=MAX_SKB_FRAGS,
            block_bytes=page,
            beside=page,
            split=HEADERS_BYTES,
        )
    if driver.model in SPLIT_MODELS:
        truesize = driver.buffer_bytes + SKB_BYTES
        copied = driver.skb_head == "copied"
        return Geometry(
            pattern=KEPT_PAGES if driver.model == "split" else OWN_KEPT_PAGES,
            writable=driver.buffer_bytes - (0 if copied else NET_SKB_PAD + SHARED_INFO_BYTES),
            taken=driver.buffer_bytes,
            headroom=0,
            synced=page,
            flags=0 if keeps_by_reference(config) else _fragment_flag(config),
            copybreak=copybreak,
            least_truesize=min(truesize, COPIED_TRUESIZE_BYTES) if copybreak else truesize,
            most_buffers=MAX_SKB_FRAGS + (0 if copied else 1),
            block_bytes=page,
        )
    most_bytes = page - BESIDE_DATA_BYTES
    if driver.model == "page-allocator":
        pattern = OWN_KEPT_PAGES if driver.page_cache else OWN_PAGES
    elif driver.page_cache:
        pattern = KEPT_PAGES
    else:
        pattern = PAGES if copybreak or largest_frame_bytes > most_bytes else PAGE_ALONE
    return Geometry(
        pattern=pattern,
        writable=most_bytes,
        taken=page,
        headroom=HEADROOM_BYTES,
        synced=most_bytes,
        flags=0,
        copybreak=copybreak,
        least_truesize=COPIED_TRUESIZE_BYTES if copybreak else page + SKB_BYTES,
        most_buffers=1 if driver.model == "replace-before-pass" else 1 + MAX_SKB_FRAGS,
        block_bytes=page,
    )


def _fragment_flag(config: TrialConfig) -> int:
    """What a pool needs for its pages to have several users."""
    return FLAG_PAGE_FRAG if rules_of(config.kernel).frag_flag_needed else 0
