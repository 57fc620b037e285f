"""Packet captures as traffic: arrival times, frame sizes, flows and RSS hashes of recorded packets.

Reads pcap (microseconds or nanoseconds, either byte order) and pcapng, each optionally gzipped. The
record headers are dpkt's; its readers are not used, because they drop the original length of a packet
and turn times into floats. Addresses are taken from the bytes directly, since a capture may hold
no more of a packet than its first headers.
"""

import gzip
import hashlib
import ipaddress
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn, cast

import dpkt
import numpy as np
import numpy.typing as npt
from dpkt import ethernet, ip, pcap, pcapng

from workers.arrivals import rss
from workers.errors import CaptureError
from workers.files import Stamp, stamp

BUNDLED = Path(__file__).parents[1] / "captures"

FCS_BYTES = 4
"""frame check sequence, on the wire but not in a capture"""

MIN_FRAME_BYTES = 64
"""shortest Ethernet frame, FCS included; captures on a sender or a virtual link hold shorter ones"""

MAX_RECORD_BYTES = 1 << 24
"""no packet is longer; a record that claims it is damaged"""

DISORDER_NS = 128_000_000
"""packets of several interfaces or queues may be this late in a file; by more, a clock was set back
(ntpd steps one that is 128 ms off, and slews it below that)"""


class Capture(NamedTuple):
    """The packets of one direction, in order of arrival. The arrays are shared and read-only."""

    arrival_ns: npt.NDArray[np.int64]
    """nanoseconds since the first packet, never decreasing"""
    frame_bytes: npt.NDArray[np.int64]
    """original length on the wire, Ethernet header and FCS included"""
    flow: npt.NDArray[np.int64]
    """number of the packet's flow (addresses, protocol, ports), counted from 0 by first appearance"""
    flow_hash: npt.NDArray[np.int64]
    """what the NIC's RSS computes: 31 bits of the Toeplitz hash of addresses and TCP or UDP ports, of the
    addresses alone for fragments and other protocols; 0 without an IP address"""
    sha256: str
    """of the file's bytes"""


def names() -> tuple[str, ...]:
    """The bundled captures, sorted."""
    return tuple(sorted(_bundled()))


def resolve(name_or_path: str) -> Path:
    """The file that a bundled name or a path stands for.

    Raises:
        CaptureError: there is no such file, or it is no regular file.
    """
    return _stamp(name_or_path).path


def digest(name_or_path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        CaptureError: there is no such file, or it cannot be read.
    """
    return _digest(_stamp(str(name_or_path)))


def load(name_or_path: str, destination: str, source: str = "") -> Capture:
    """Read a capture; a file that did not change is read only once.

    Args:
        name_or_path: a bundled name (see :func:`names`) or a path.
        destination: IP address; only packets to it are selected. Empty selects all packets.
        source: IP address; only packets from it are selected. Empty selects all packets.

    Raises:
        CaptureError: no such file, no capture, truncated, damaged, without times, or no packet in this
            direction.
    """
    wanted = _Direction(_address("source", source), _address("destination", destination))
    return _load(_stamp(name_or_path), wanted)


def _address(end: str, text: str) -> bytes:
    if not text:
        return b""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise CaptureError(
            f"capture {end} {text!r}: not an IP address; "
            "write one such as 10.77.0.2, or leave it empty for all packets"
        ) from None


class _BrokenError(Exception):
    """What is wrong with a capture and what to do; :func:`_load` adds the file."""


class _Record(NamedTuple):
    time_ns: int
    original_bytes: int
    link_type: int
    data: bytes


class _Direction(NamedTuple):
    """Packed addresses; those that are empty select any."""

    source: bytes
    destination: bytes


class _Flow(NamedTuple):
    """What tells one flow from others; without IP, the addresses are empty and the protocol an EtherType."""

    source: bytes
    destination: bytes
    protocol: int
    ports: bytes

    @property
    def rss_hash(self) -> int:
        hashed = self.ports if self.protocol in _HASHED_WITH_PORTS and len(self.ports) == 4 else b""
        return rss.flow_hash(self.source + self.destination + hashed)


class _Interface(NamedTuple):
    """Of a pcapng section: time = ticks * 10^9 / ticks_per_second + offset_ns."""

    link_type: int
    ticks_per_second: int
    offset_ns: int


class _Link(NamedTuple):
    header_bytes: int
    protocol_offset: int | None
    """of the EtherType; None where the first half-byte of the packet is the IP version"""


_LINKS = {
    pcap.DLT_EN10MB: _Link(ethernet.ETH_HDR_LEN, 12),
    pcap.DLT_LINUX_SLL: _Link(16, 14),
    pcap.DLT_LINUX_SLL2: _Link(20, 0),
    12: _Link(0, None),  # raw IP has had three numbers, depending on the system
    14: _Link(0, None),
    101: _Link(0, None),
    pcap.DLT_IPV4: _Link(0, None),
    pcap.DLT_IPV6: _Link(0, None),
}

_TAGGED = (
    ethernet.ETH_TYPE_8021Q,
    ethernet.ETH_TYPE_8021AD,
    ethernet.ETH_TYPE_QINQ1,
    ethernet.ETH_TYPE_QINQ2,
)
_WITH_PORTS = (ip.IP_PROTO_TCP, ip.IP_PROTO_UDP, ip.IP_PROTO_SCTP)
_HASHED_WITH_PORTS = (ip.IP_PROTO_TCP, ip.IP_PROTO_UDP)
_SKIPPED_EXTENSIONS = (ip.IP_PROTO_HOPOPTS, ip.IP_PROTO_ROUTING, ip.IP_PROTO_DSTOPTS)

_SECTION = pcapng.PCAPNG_BT_SHB.to_bytes(4, "big")
_GZIP = b"\x1f\x8b"


def _bundled() -> dict[str, Path]:
    return {path.name.partition(".")[0]: path for path in BUNDLED.iterdir() if ".pcap" in path.name}


def _stamp(name_or_path: str) -> Stamp:
    path = _bundled().get(name_or_path, Path(name_or_path))
    try:
        return stamp(path)
    except OSError as error:
        raise CaptureError(
            f"capture {name_or_path!r}: {error.strerror}; "
            f"name a pcap or pcapng file, or a bundled capture ({', '.join(names())})"
        ) from None


@lru_cache(maxsize=256)
def _digest(file: Stamp) -> str:
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        _unreadable(file, error)


@lru_cache(maxsize=8)
def _load(file: Stamp, wanted: _Direction) -> Capture:
    sha256 = _digest(file)
    try:
        with file.path.open("rb") as raw:
            start = raw.read(2)
            raw.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if start == _GZIP else raw
            return _select(_records(stream), wanted, sha256)
    except _BrokenError as error:
        raise CaptureError(f"{file.path}: {error}") from None
    except EOFError:
        raise CaptureError(f"{file.path}: truncated, the gzip data end early; copy the file again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise CaptureError(f"{file.path}: damaged gzip data; copy the file again") from None
    except (dpkt.Error, struct.error, OverflowError, UnicodeDecodeError):
        raise CaptureError(f"{file.path}: damaged capture record; record it again") from None
    except OSError as error:
        _unreadable(file, error)


def _unreadable(file: Stamp, error: OSError) -> NoReturn:
    raise CaptureError(f"{file.path}: cannot be read ({error.strerror}); check the file and its permissions")


def _select(records: Iterator[_Record], wanted: _Direction, sha256: str) -> Capture:
    times, lengths, flows = array("q"), array("q"), array("q")
    flow_numbers: dict[_Flow, int] = {}
    directions: Counter[_Direction] = Counter()
    packets = latest_ns = 0
    for record in records:
        packets += 1
        if packets > 1 and record.time_ns < latest_ns - DISORDER_NS:
            raise _BrokenError(
                f"time goes back by {(latest_ns - record.time_ns) / 10**9:.3f} s at packet {packets}; "
                "split it there with editcap, or sort it with reordercap"
            )
        latest_ns = record.time_ns if packets == 1 else max(latest_ns, record.time_ns)
        link = _LINKS.get(record.link_type)
        if link is None:
            raise _BrokenError(
                f"link type {record.link_type} is not supported; capture on an Ethernet interface"
            )
        flow = _flow_of(link, record.data)
        direction = _Direction(
            flow.source if wanted.source else b"", flow.destination if wanted.destination else b""
        )
        directions[direction] += 1
        if direction != wanted:
            continue
        ethernet_bytes = record.original_bytes - link.header_bytes + ethernet.ETH_HDR_LEN
        times.append(record.time_ns)
        lengths.append(max(ethernet_bytes + FCS_BYTES, MIN_FRAME_BYTES))
        flows.append(flow_numbers.setdefault(flow, len(flow_numbers)))
    if not packets:
        raise _BrokenError("holds no packets; record some first")
    if not times:
        raise _BrokenError(_nothing_this_way(packets, wanted, directions))
    arrival_ns = np.array(times, dtype=np.int64)
    # recordings of several interfaces or queues are not quite in order
    order = np.argsort(arrival_ns, kind="stable")
    arrival_ns = arrival_ns[order]
    arrival_ns -= arrival_ns[0]
    if len(arrival_ns) > 1 and arrival_ns[-1] == 0:
        raise _BrokenError(
            f"has no times, all {len(arrival_ns)} packets carry the same; record it again with times"
        )
    frame_bytes = np.array(lengths, dtype=np.int64)[order]
    number = np.array(flows, dtype=np.int64)[order]
    flow_hash = np.array([flow.rss_hash for flow in flow_numbers], dtype=np.int64)[number]
    flow_number = _numbered_by_first_appearance(number)
    for column in (arrival_ns, frame_bytes, flow_number, flow_hash):
        column.setflags(write=False)
    return Capture(arrival_ns, frame_bytes, flow_number, flow_hash, sha256)


def _nothing_this_way(packets: int, wanted: _Direction, directions: Counter[_Direction]) -> str:
    ends = [end for end, packed in wanted._asdict().items() if packed]
    asked = " ".join(
        f"{word} {ipaddress.ip_address(packed)}"
        for word, packed in zip(("from", "for"), wanted, strict=True)
        if packed
    )
    del directions[_Direction(b"", b"")]
    frequent = ", ".join(
        f"{' to '.join(str(ipaddress.ip_address(packed)) for packed in direction if packed)} ({count})"
        for direction, count in directions.most_common(3)
    )
    fields = " and ".join(f"traffic.capture_{end}" for end in ends)
    return (
        f"none of its {packets} packets is {asked}; choose {fields} from its most frequent: "
        f"{frequent or 'none has an IP address'}"
    )


def _numbered_by_first_appearance(flow: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    _, first, inverse = np.unique(flow, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]


def _records(stream: BinaryIO) -> Iterator[_Record]:
    magic = stream.read(4)
    if magic == _SECTION:
        return _pcapng_records(stream)
    if int.from_bytes(magic, "big") in pcap.MAGIC_TO_PKT_HDR:
        return _pcap_records(stream, magic)
    raise _BrokenError("not a pcap or pcapng capture; name a file written by tcpdump, dumpcap or Wireshark")


def _pcap_records(stream: BinaryIO, magic: bytes) -> Iterator[_Record]:
    number = int.from_bytes(magic, "big")
    little = number in (pcap.PMUDPCT_MAGIC, pcap.PMUDPCT_MAGIC_NANO, pcap.PACPDOM_MAGIC)
    tick_ns = 1 if number in (pcap.TCPDUMP_MAGIC_NANO, pcap.PMUDPCT_MAGIC_NANO) else 1000
    header_class = pcap.LEFileHdr if little else pcap.FileHdr
    record_class = pcap.MAGIC_TO_PKT_HDR[number]
    rest = header_class.__hdr_len__ - len(magic)
    link_type = header_class(magic + _exactly(stream, rest, 0)).linktype
    count = 0
    while start := stream.read(record_class.__hdr_len__):
        count += 1
        if len(start) < record_class.__hdr_len__:
            _truncated(count)
        header = record_class(start)
        if max(header.caplen, header.len) > MAX_RECORD_BYTES:
            raise _BrokenError(f"damaged, packet {count} claims {header.len} bytes; record it again")
        data = _exactly(stream, header.caplen, count)
        time_ns = header.tv_sec * 10**9 + header.tv_usec * tick_ns
        yield _Record(time_ns, max(header.len, header.caplen), link_type, data)


def _pcapng_records(stream: BinaryIO) -> Iterator[_Record]:
    interfaces: list[_Interface] = []
    little = False
    count = 0
    start = _SECTION + _exactly(stream, 4, 0)
    while start:
        if len(start) < 8:
            _truncated(count)
        if start[:4] == _SECTION:
            start += _exactly(stream, 4, count)
            little = start[8:] == pcapng.BYTE_ORDER_MAGIC.to_bytes(4, "little")
            interfaces = []
        kind, length = struct.unpack("<II" if little else ">II", start[:8])
        if not len(start) + 4 <= length <= MAX_RECORD_BYTES:
            raise _BrokenError(f"damaged, a block after packet {count} has length {length}; record it again")
        block = start + _exactly(stream, length - len(start), count)
        if kind == pcapng.PCAPNG_BT_SHB:
            section = (pcapng.SectionHeaderBlockLE if little else pcapng.SectionHeaderBlock)(block)
            if (section.bom, section.v_major) != (pcapng.BYTE_ORDER_MAGIC, 1):
                raise _BrokenError("not a pcapng capture of version 1; write it again with dumpcap")
        elif kind == pcapng.PCAPNG_BT_IDB:
            interfaces.append(_interface(block, little))
        elif kind in (pcapng.PCAPNG_BT_EPB, pcapng.PCAPNG_BT_PB):
            count += 1
            yield _packet(kind, block, little, interfaces, count)
        elif kind == pcapng.PCAPNG_BT_SPB:
            raise _BrokenError("simple packet blocks have no arrival times; record it again with times")
        start = stream.read(8)


def _interface(block: bytes, little: bool) -> _Interface:
    order = "<" if little else ">"
    header = (pcapng.InterfaceDescriptionBlockLE if little else pcapng.InterfaceDescriptionBlock)(block)
    ticks_per_second, offset_ns = 10**6, 0
    for option in header.opts:
        if option.code == pcapng.PCAPNG_OPT_IF_TSRESOL:
            (resolution,) = struct.unpack("B", option.data)
            ticks_per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
        elif option.code == pcapng.PCAPNG_OPT_IF_TSOFFSET:
            offset_ns = struct.unpack(order + "q", option.data)[0] * 10**9
    return _Interface(header.linktype, ticks_per_second, offset_ns)


def _packet(kind: int, block: bytes, little: bool, interfaces: list[_Interface], count: int) -> _Record:
    if kind == pcapng.PCAPNG_BT_EPB:
        header = (pcapng.EnhancedPacketBlockLE if little else pcapng.EnhancedPacketBlock)(block)
    else:
        header = (pcapng.PacketBlockLE if little else pcapng.PacketBlock)(block)
    room = len(block) - header.__hdr_len__
    if header.caplen > room or header.pkt_len > MAX_RECORD_BYTES or header.iface_id >= len(interfaces):
        raise _BrokenError(f"damaged, packet {count} does not fit its block; record it again")
    interface = interfaces[header.iface_id]
    ticks = header.ts_high << 32 | header.ts_low
    time_ns = ticks * 10**9 // interface.ticks_per_second + interface.offset_ns
    return _Record(time_ns, max(header.pkt_len, header.caplen), interface.link_type, header.pkt_data)


def _exactly(stream: BinaryIO, count: int, packet: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        _truncated(packet)
    return data


def _truncated(packet: int) -> NoReturn:
    place = f"inside packet {packet}" if packet else "inside its header"
    raise _BrokenError(f"truncated, it ends {place}; copy or record it again")


def _flow_of(link: _Link, data: bytes) -> _Flow:
    at = link.header_bytes
    if link.protocol_offset is None:
        version = data[0] >> 4 if data else 0
        protocol = {4: ethernet.ETH_TYPE_IP, 6: ethernet.ETH_TYPE_IP6}.get(version, 0)
    else:
        protocol = int.from_bytes(data[link.protocol_offset : link.protocol_offset + 2], "big")
    while protocol in _TAGGED and at + 4 <= len(data):
        protocol = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
    if protocol == ethernet.ETH_TYPE_IP and len(data) >= at + 20:
        source, destination = data[at + 12 : at + 16], data[at + 16 : at + 20]
        transport = data[at + 9]
        fragment = int.from_bytes(data[at + 6 : at + 8], "big") & (ip.IP_MF | ip.IP_OFFMASK)
        at += (data[at] & 0xF) * 4
    elif protocol == ethernet.ETH_TYPE_IP6 and len(data) >= at + 40:
        source, destination = data[at + 8 : at + 24], data[at + 24 : at + 40]
        transport, fragment, at = _ip6_transport(data, at)
    else:
        return _Flow(b"", b"", protocol, b"")
    # as a NIC hashes: fragments by address alone, since only the first one has the ports
    ports = data[at : at + 4] if transport in _WITH_PORTS and not fragment else b""
    return _Flow(source, destination, transport, ports)


def _ip6_transport(data: bytes, at: int) -> tuple[int, int, int]:
    """Protocol, fragment bits, and place of what follows the IPv6 header at ``at`` and its extensions."""
    transport, fragment = data[at + 6], 0
    at += 40
    while at + 8 <= len(data):
        if transport == ip.IP_PROTO_FRAGMENT:
            fragment = int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF9
            length = 8
        elif transport in _SKIPPED_EXTENSIONS:
            length = (data[at + 1] + 1) * 8
        else:
            break
        transport = data[at]
        at += length
    return transport, fragment, at
