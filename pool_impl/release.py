"""What differs between kernel releases, as data.

Release numbers stand nowhere else. A value belongs here when two releases differ in it or a further
release is known to (spec 1.4, 1.5, 2.4, 3.5).
"""

from typing import NamedTuple


class Rules(NamedTuple):
    """The rules of one release; plain integers, so that they pass into compiled code."""

    known_flags: int
    """flag bits that creation accepts"""
    ring_size_limit: int
    """largest ring; a larger request is cut to it"""
    frag_flag_needed: int
    """1: fragments need FLAG_PAGE_FRAG, and only then are fragment counts looked at"""
    frag_bias: int
    """fragment count of a page that is being cut up"""
    frag_align_bytes: int
    """fragment sizes are rounded up to this"""
    direct_needs_softirq: int
    """1: an allow_direct outside softirq (and with bottom halves enabled) is ignored"""


RELEASES = {
    "6.1": Rules(
        known_flags=0x7,
        ring_size_limit=16384,
        frag_flag_needed=1,
        frag_bias=(1 << 63) - 1,
        frag_align_bytes=8,
        direct_needs_softirq=1,
    ),
}
"""rules by release; 6.1 is 6.1.192"""

DEFAULT_RELEASE = "6.1"


def rules_of(kernel: str) -> Rules:
    """Rules for a release or one of its versions, such as ``6.1`` or ``6.1.192``.

    Raises:
        KeyError: no rules for this release.
    """
    return RELEASES[".".join(kernel.split(".")[:2])]
