"""How much a trial can hold at the most: what its tables have to have room for."""

from pool_impl.coalesce import GRO_MAX_BYTES
from pool_impl.layout import MAX_SKB_FRAGS, SKB_BYTES
from workers.config import TrialConfig
from workers.drivers.geometry import Geometry
from workers.fields.derived import TCP_HEADERS_BYTES, cuts_up, merges, moves_interrupts, reads_sockets
from workers.net import backlog
from workers.net.deferred import MOST_SKBS
from workers.net.retention import MOST_RETAINED
from workers.profiles.hardware import page_bytes
from workers.state import GRO_BUCKET_SKBS, GRO_BUCKETS

LEAST_FRAME_BYTES = 64


def socket_packets(config: TrialConfig, geometry: Geometry) -> int:
    """How many skbs a socket holds at the most; one that was merged counts less than one alone."""
    size = geometry.least_truesize - (SKB_BYTES if config.app.protocol == "tcp" else 0)
    return config.app.socket_bytes // size + 1


def tap_packets(config: TrialConfig, geometry: Geometry) -> int:
    """Clones that the packet socket holds at the most: the last one is let in below the limit."""
    return config.stack.capture_bytes // geometry.least_truesize + 2 if config.stack.capture_percent else 0


def kept_packets(config: TrialConfig) -> int:
    """The last ones that a reader which holds packets keeps."""
    return config.app.hold_packets if config.app.reader == "hold" else 0


def most_merged(config: TrialConfig) -> int:
    """Pages of one skb at the most: head and fragments in the socket, or all that GRO merged."""
    if config.app.protocol != "tcp":
        return 1
    merged = MAX_SKB_FRAGS + 1
    # what the NIC merges lies in as many pages as an skb has fragments
    return max(merged, GRO_MAX_BYTES // _payload_bytes(config) + 2) if config.stack.gro else merged


def most_segments(config: TrialConfig) -> int:
    """Skbs that one is cut up into at the most, before they go to a transmit ring."""
    if not cuts_up(config):
        return 0
    return GRO_MAX_BYTES // _payload_bytes(config) + 2


def most_in_stack(config: TrialConfig, geometry: Geometry, merged: int) -> int:
    """Pages above the driver at the most, and skbs, if so many packets are merged into one."""
    app, stack, queues = config.app, config.stack, config.nic.queues
    found = tap_packets(config, geometry)
    if app.protocol == "tcp" and stack.gro:
        found += merged * GRO_BUCKETS * GRO_BUCKET_SKBS * queues
    if stack.rps:
        found += stack.rps * 2 * (backlog.MOST_WAITING + 1) * (merged if merges(config) else 1)
    if reads_sockets(config):
        kept = kept_packets(config) + 1 + (MOST_RETAINED if app.hold_percent else 0)
        found += app.readers * (socket_packets(config, geometry) + kept * merged)
        lists = queues * (2 if moves_interrupts(config) else 1) + config.xdp.redirect_cpus
        found += lists * MOST_SKBS * merged if app.protocol == "tcp" else 0
    return found


def _payload_bytes(config: TrialConfig) -> int:
    """The least that a TCP packet carries."""
    size = config.traffic.packet_size
    if isinstance(size, str) or config.traffic.kind == "capture":
        size = LEAST_FRAME_BYTES
    return size - TCP_HEADERS_BYTES


def packets_of_a_page(config: TrialConfig) -> int:
    """How many TCP packets one page holds the bytes of."""
    return 1 + page_bytes(config) // _payload_bytes(config)
