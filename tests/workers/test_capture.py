"""Captures: what is read, against files written and counted here with struct alone."""

import gzip
import hashlib
import ipaddress
import os
import re
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.arrivals import capture, rss
from workers.errors import CaptureError

ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
BASE_S = 1_700_000_000
TCP, UDP, ICMP, SCTP = 6, 17, 1, 132


class Sent(NamedTuple):
    time_ns: int
    data: bytes
    original: int


def ethernet(protocol: int, payload: bytes, tags: int = 0) -> bytes:
    header = b"\x02\0\0\0\0\1" + b"\x02\0\0\0\0\2"
    header += struct.pack(">HH", 0x8100, 7) * tags
    return header + struct.pack(">H", protocol) + payload


def ipv4(
    destination: str, *, protocol: int = TCP, ports: tuple[int, int] = (1000, 2000), fragment: int = 0
) -> bytes:
    addresses = ipaddress.ip_address("10.0.0.1").packed + ipaddress.ip_address(destination).packed
    return (
        struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, fragment, 64, protocol, 0)
        + addresses
        + struct.pack(">HH", *ports)
    )


def ipv6(
    destination: str,
    *,
    protocol: int = UDP,
    ports: tuple[int, int] = (1000, 2000),
    extensions: tuple[tuple[int, bytes], ...] = (),
) -> bytes:
    addresses = ipaddress.ip_address("fd00::1").packed + ipaddress.ip_address(destination).packed
    kinds = [kind for kind, _ in extensions] + [protocol]
    chain = b"".join(
        bytes([follower]) + body for follower, (_, body) in zip(kinds[1:], extensions, strict=True)
    )
    return struct.pack(">IHBB", 6 << 28, 8, kinds[0], 64) + addresses + chain + struct.pack(">HH", *ports)


def pcap(packets: list[Sent], order: str = "<", nano: bool = True, link: int = 1) -> bytes:
    magic, tick = (0xA1B23C4D, 1) if nano else (0xA1B2C3D4, 1000)
    out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 96, link)
    for packet in packets:
        seconds, rest = divmod(packet.time_ns, 10**9)
        out += struct.pack(order + "IIII", seconds, rest // tick, len(packet.data), packet.original)
        out += packet.data
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def option(order: str, code: int, data: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(data)) + data + b"\0" * (-len(data) % 4)


def interface(order: str, *, link: int = 1, options: bytes = b"") -> bytes:
    end = struct.pack(order + "HH", 0, 0) if options else b""
    return block(order, 1, struct.pack(order + "HHI", link, 0, 96) + options + end)


def enhanced(order: str, ticks: int, data: bytes, original: int, number: int = 0) -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), original)
    return block(order, 6, head + data)


def pcapng(packets: list[Sent], order: str = "<") -> bytes:
    nanoseconds = option(order, 9, b"\x09")
    out = section(order) + interface(order, options=nanoseconds)
    return out + b"".join(enhanced(order, p.time_ns, p.data, p.original) for p in packets)


def at(offset_ns: int, payload: bytes = b"", original: int = 1514, tags: int = 0) -> Sent:
    return Sent(BASE_S * 10**9 + offset_ns, ethernet(0x0800, payload or ipv4("10.0.0.2"), tags), original)


THREE = [
    at(123_456_789),
    at(123_456_790, ipv4("10.0.0.2", ports=(1001, 2000)), original=66),
    at(2_000_000_001, ipv4("10.0.0.9"), original=300),
]


def write(folder: Path, content: bytes, name: str = "some.capture") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def arrivals(read: capture.Capture) -> list[int]:
    return [int(value) for value in read.arrival_ns]


def sizes(read: capture.Capture) -> list[int]:
    return [int(value) for value in read.frame_bytes]


def flows(read: capture.Capture) -> list[int]:
    return [int(value) for value in read.flow]


@ORDERS
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("writer", [pcap, pcapng])
def test_nanosecond_times_lengths_and_flows_are_exact(
    tmp_path: Path, order: str, compress: bool, writer: Callable[[list[Sent], str], bytes]
) -> None:
    content = writer(THREE, order)
    read = capture.load(write(tmp_path, gzip.compress(content, mtime=0) if compress else content), "")
    assert arrivals(read) == [0, 1, 1_876_543_212]
    assert sizes(read) == [1518, 70, 304]
    assert flows(read) == [0, 1, 2]
    assert {column.dtype for column in read[:4]} == {np.dtype(np.int64)}


@ORDERS
def test_microsecond_pcap_counts_in_nanoseconds(tmp_path: Path, order: str) -> None:
    read = capture.load(write(tmp_path, pcap(THREE, order, nano=False)), "")
    assert arrivals(read) == [0, 0, 1_876_544_000]


@ORDERS
@pytest.mark.parametrize(
    ("options", "ticks", "expected_ns"),
    [
        (b"", [0, 1, 1_000_000], [0, 1000, 10**9]),
        (b"\x03", [5, 6], [0, 10**6]),
        (b"\x0c", [10**12, 10**12 + 1999], [0, 1]),
        (b"\x8a", [1024, 1025], [0, 976_562]),
        (b"\xbf", [1 << 63, (1 << 63) + (1 << 62)], [0, 500_000_000]),
    ],
    ids=["default", "milliseconds", "picoseconds", "2^-10", "2^-63"],
)
def test_pcapng_time_resolutions_are_honoured(
    tmp_path: Path, order: str, options: bytes, ticks: list[int], expected_ns: list[int]
) -> None:
    content = section(order) + interface(order, options=options and option(order, 9, options))
    content += b"".join(enhanced(order, tick, THREE[0].data, 100) for tick in ticks)
    assert arrivals(capture.load(write(tmp_path, content), "")) == expected_ns


def test_interfaces_and_sections_of_a_pcapng_keep_their_own_clock_and_byte_order(tmp_path: Path) -> None:
    offset = option("<", 14, struct.pack("<q", 100)) + option("<", 9, b"\x09")
    content = section("<") + interface("<") + interface("<", options=offset)
    content += enhanced("<", 100_000_001, THREE[0].data, 100)
    content += enhanced("<", 7, THREE[0].data, 100, number=1)
    content += section(">") + interface(">", link=101)
    content += enhanced(">", 100_000_002, ipv4("10.0.0.2"), 100)
    read = capture.load(write(tmp_path, content), "")
    assert arrivals(read) == [0, 993, 1993]
    assert sizes(read) == [104, 104, 118]
    assert flows(read) == [0, 0, 0]


def test_unknown_blocks_and_obsolete_packet_blocks_are_tolerated(tmp_path: Path) -> None:
    obsolete = struct.pack("<HHIIII", 0, 3, 0, 5, 34, 100) + THREE[0].data[:34]
    content = section("<") + block("<", 0x0BAD, b"whatever") + interface("<") + block("<", 2, obsolete)
    assert sizes(capture.load(write(tmp_path, content), "")) == [104]


def test_packets_late_by_less_than_a_stepped_clock_are_sorted(tmp_path: Path) -> None:
    late = at(872_000_000, original=200)
    read = capture.load(write(tmp_path, pcap([at(0), at(10**9), late, at(2 * 10**9)])), "")
    assert arrivals(read) == [0, 872_000_000, 10**9, 2 * 10**9]
    assert sizes(read)[1] == 204


def test_packets_out_of_order_are_sorted_and_flows_numbered_after_that(tmp_path: Path) -> None:
    late = at(50, ipv4("10.0.0.2", ports=(1, 1)), original=200)
    early = at(20, ipv4("10.0.0.2", ports=(2, 2)), original=300)
    twin = at(20, ipv4("10.0.0.2", ports=(1, 1)), original=400)
    read = capture.load(write(tmp_path, pcap([late, early, twin])), "")
    assert arrivals(read) == [0, 0, 30]
    assert sizes(read) == [304, 404, 204]
    assert flows(read) == [0, 1, 1]


def test_direction_selects_by_destination_and_starts_the_clock_there(tmp_path: Path) -> None:
    name = write(tmp_path, pcap(THREE))
    assert arrivals(capture.load(name, "10.0.0.2")) == [0, 1]
    assert arrivals(capture.load(name, "10.0.0.9")) == [0]
    assert flows(capture.load(name, "10.0.0.9")) == [0]


def test_direction_selects_by_source_and_by_both_ends(tmp_path: Path) -> None:
    reply = ipv4("10.0.0.1")
    reply = reply[:12] + ipaddress.ip_address("10.0.0.9").packed + reply[16:]
    name = write(tmp_path, pcap([at(0), at(5, reply), at(7, ipv4("10.0.0.9")), at(8)]))
    assert arrivals(capture.load(name, "", "10.0.0.1")) == [0, 7, 8]
    assert arrivals(capture.load(name, "", "10.0.0.9")) == [0]
    assert arrivals(capture.load(name, "10.0.0.2", "10.0.0.1")) == [0, 8]
    assert arrivals(capture.load(name, "10.0.0.1", "10.0.0.9")) == [0]


def test_ipv6_destination_is_found_in_any_spelling(tmp_path: Path) -> None:
    packets = [
        Sent(1, ethernet(0x86DD, ipv6("fd00::2")), 90),
        Sent(2, ethernet(0x86DD, ipv6("fd00::3")), 90),
    ]
    name = write(tmp_path, pcap(packets))
    assert len(capture.load(name, "fd00::2").flow) == 1
    assert len(capture.load(name, "FD00:0:0:0:0:0:0:2").flow) == 1


def test_vlan_tags_hide_neither_address_nor_flow(tmp_path: Path) -> None:
    packets = [at(0), at(1, tags=1), at(2, tags=2)]
    read = capture.load(write(tmp_path, pcap(packets)), "10.0.0.2")
    assert flows(read) == [0, 0, 0]


@pytest.mark.parametrize("link", [12, 14, 101, 228])
def test_raw_ip_counts_the_ethernet_header_that_the_wire_had(tmp_path: Path, link: int) -> None:
    content = pcap([Sent(0, ipv4("10.0.0.2"), 1500)], link=link)
    assert sizes(capture.load(write(tmp_path, content), "10.0.0.2")) == [1518]


@pytest.mark.parametrize(
    ("link", "header"), [(113, b"\0" * 14 + b"\x08\x00"), (276, b"\x08\x00" + b"\0" * 18)]
)
def test_captures_on_any_interface_are_read(tmp_path: Path, link: int, header: bytes) -> None:
    packet = Sent(0, header + ipv4("10.0.0.2"), 1500 + len(header))
    assert sizes(capture.load(write(tmp_path, pcap([packet], link=link)), "10.0.0.2")) == [1518]


def test_short_frames_count_as_the_64_bytes_they_take_on_the_wire(tmp_path: Path) -> None:
    assert sizes(capture.load(write(tmp_path, pcap([at(0, original=42)])), "")) == [64]


def test_flows_are_told_apart_by_address_protocol_and_ports(tmp_path: Path) -> None:
    payloads = [
        ipv4("10.0.0.2"),
        ipv4("10.0.0.3"),
        ipv4("10.0.0.2", protocol=UDP),
        ipv4("10.0.0.2", ports=(1000, 2001)),
        ipv4("10.0.0.2", protocol=ICMP, ports=(1, 1)),
        ipv4("10.0.0.2", protocol=ICMP, ports=(2, 2)),
        ipv4("10.0.0.2"),
    ]
    read = capture.load(write(tmp_path, pcap([at(i, p) for i, p in enumerate(payloads)])), "")
    assert flows(read) == [0, 1, 2, 3, 4, 4, 0]


def test_fragments_form_one_flow_since_only_the_first_has_ports(tmp_path: Path) -> None:
    first = ipv4("10.0.0.2", protocol=UDP, fragment=0x2000)
    second = ipv4("10.0.0.2", protocol=UDP, ports=(9, 9), fragment=185)
    six = ipv6("fd00::2", extensions=((44, struct.pack(">BHI", 0, 1, 5)),))
    seven = ipv6("fd00::2", ports=(9, 9), extensions=((44, struct.pack(">BHI", 0, 1448, 5)),))
    packets = [at(0, first), at(1, second)]
    packets += [Sent(BASE_S * 10**9 + 2 + i, ethernet(0x86DD, p), 100) for i, p in enumerate((six, seven))]
    assert flows(capture.load(write(tmp_path, pcap(packets)), "")) == [0, 0, 1, 1]


def test_ports_are_found_behind_ipv6_extension_headers(tmp_path: Path) -> None:
    hop_by_hop = (0, b"\x01" + b"\x04" * 14)
    options = (60, b"\0" * 7)
    payloads = [
        ipv6("fd00::2"),
        ipv6("fd00::2", extensions=(hop_by_hop, options)),
        ipv6("fd00::2", extensions=(hop_by_hop, options), ports=(3, 3)),
    ]
    packets = [Sent(i, ethernet(0x86DD, payload), 100) for i, payload in enumerate(payloads)]
    assert flows(capture.load(write(tmp_path, pcap(packets)), "")) == [0, 0, 1]


MICROSOFT_IPV4 = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
]
MICROSOFT_IPV6 = [
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4B61E985, 0x02D1FEEF),
]
"""source and destination with ports, hash of the addresses and of addresses and ports, as published in
"Verifying the RSS Hash Calculation" """


@pytest.mark.parametrize("row", MICROSOFT_IPV4 + MICROSOFT_IPV6)
def test_toeplitz_gives_the_published_hashes(row: tuple[str, int, str, int, int, int]) -> None:
    source, source_port, destination, destination_port, of_addresses, of_ports = row
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    assert rss.toeplitz(addresses) == of_addresses
    assert rss.toeplitz(addresses + struct.pack(">HH", source_port, destination_port)) == of_ports


def from_source(packet: bytes, source: str) -> bytes:
    """The same IP packet from another address."""
    packed = ipaddress.ip_address(source).packed
    place = 12 if len(packed) == 4 else 8
    return packet[:place] + packed + packet[place + len(packed) :]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("row", MICROSOFT_IPV4 + MICROSOFT_IPV6)
def test_packets_carry_the_hash_that_a_nic_gives_them(
    tmp_path: Path, row: tuple[str, int, str, int, int, int], protocol: int
) -> None:
    source, source_port, destination, destination_port, _, of_ports = row
    build, ether = (ipv6, 0x86DD) if ":" in source else (ipv4, 0x0800)
    payload = from_source(
        build(destination, protocol=protocol, ports=(source_port, destination_port)), source
    )
    read = capture.load(write(tmp_path, pcap([Sent(0, ethernet(ether, payload, tags=1), 100)])), "")
    assert read.flow_hash.tolist() == [of_ports & 0x7FFFFFFF]


def test_without_ports_of_tcp_or_udp_the_addresses_are_hashed_and_without_ip_nothing(tmp_path: Path) -> None:
    source, source_port, destination, destination_port, of_addresses, of_ports = MICROSOFT_IPV4[0]
    ports = (source_port, destination_port)
    tcp, first, rest, icmp, sctp = (
        from_source(ipv4(destination, protocol=protocol, ports=ports, fragment=fragment), source)
        for protocol, fragment in ((TCP, 0), (UDP, 0x2000), (UDP, 185), (ICMP, 0), (SCTP, 0))
    )
    cut = tcp[:22]
    payloads = [icmp, tcp, first, cut, rest, sctp, tcp]
    packets = [at(i, payload) for i, payload in enumerate(payloads)]
    # the earliest of all, though last in the file
    packets.append(Sent(BASE_S * 10**9 - 1, ethernet(0x0806, b"\0" * 28), 60))
    read = capture.load(write(tmp_path, pcap(packets)), "")
    alone, whole = of_addresses & 0x7FFFFFFF, of_ports & 0x7FFFFFFF
    assert read.flow_hash.tolist() == [0, alone, whole, alone, alone, alone, alone, whole]


@pytest.mark.parametrize("queues", [1, 3, 8, 128])
def test_the_indirection_table_deals_its_entries_out_in_turn(queues: int) -> None:
    table = rss.indirection(queues).tolist()
    assert table == [*range(queues)] * (128 // queues) + [*range(128 % queues)]


def test_packets_cut_before_their_addresses_count_but_have_no_direction(tmp_path: Path) -> None:
    name = write(tmp_path, pcap([Sent(0, at(0).data[:30], 500), Sent(1, b"", 500), at(2)]))
    assert len(capture.load(name, "").flow) == 3
    assert len(capture.load(name, "10.0.0.2").flow) == 1


def count_bundled() -> tuple[list[tuple[int, int, bytes, bytes]], str]:
    """Time, original length, destination and source port of each packet, by plain struct."""
    content = capture.resolve("tcp_bulk").read_bytes()
    data = gzip.decompress(content)
    packets, place = [], 24
    while place < len(data):
        seconds, rest, kept, original = struct.unpack_from("<IIII", data, place)
        packet = data[place + 16 : place + 16 + kept]
        destination = packet[30:34] if packet[12:14] == b"\x08\x00" else b""
        packets.append((seconds * 10**9 + rest, original, destination, packet[34:38]))
        place += 16 + kept
    return packets, hashlib.sha256(content).hexdigest()


def test_bundled_capture_agrees_with_an_independent_count() -> None:
    packets, sha256 = count_bundled()
    everything = capture.load("tcp_bulk", "")
    assert len(packets) == len(everything.flow) == 10_000
    receiver = [p for p in packets if p[2] == bytes([10, 77, 0, 2])]
    read = capture.load("tcp_bulk", "10.77.0.2")
    first = min(p[0] for p in receiver)
    assert sorted(p[0] - first for p in receiver) == arrivals(read)
    assert Counter(max(p[1] + 4, 64) for p in receiver) == Counter(sizes(read))
    assert sorted(Counter(p[3] for p in receiver).values()) == sorted(Counter(flows(read)).values())
    assert read.sha256 == capture.digest("tcp_bulk") == sha256


def test_bundled_capture_fits_its_description() -> None:
    read = capture.load("tcp_bulk", "10.77.0.2")
    assert len(read.flow) == 9_081
    assert round(int(read.arrival_ns[-1]) / 1e9, 3) == 0.132
    assert round(float(read.frame_bytes.mean())) == 1509
    assert capture.digest("tcp_bulk") in (capture.BUNDLED / "README.md").read_text()


def test_bundled_gzip_carries_no_time_so_that_it_can_be_made_again() -> None:
    assert capture.resolve("tcp_bulk").read_bytes()[4:8] == b"\0\0\0\0"


def test_bundled_names_are_stems_and_hide_no_path(tmp_path: Path) -> None:
    assert capture.names() == ("tcp_bulk",)
    assert capture.resolve("tcp_bulk").name == "tcp_bulk.pcap.gz"
    own = write(tmp_path, pcap(THREE), "tcp_bulk")
    assert capture.resolve(own) == Path(own)


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    name = write(tmp_path, pcap(THREE))
    first = capture.load(name, "")
    assert capture.load(name, "") is first
    write(tmp_path, pcap(THREE[:2]))
    second = capture.load(name, "")
    assert len(second.flow) == 2
    assert second.sha256 == capture.digest(name) == hashlib.sha256(Path(name).read_bytes()).hexdigest()


def test_shared_arrays_cannot_be_written() -> None:
    read = capture.load("tcp_bulk", "10.77.0.2")
    assert not any(column.flags.writeable for column in read[:4])


GOOD = pcap(THREE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a pcap or pcapng capture"),
        (b"PK\x03\x04" + b"\0" * 100, "not a pcap or pcapng capture"),
        (gzip.compress(b"hello, world", mtime=0), "not a pcap or pcapng capture"),
        (GOOD[:20], "truncated, it ends inside its header"),
        (GOOD[:-1], "truncated, it ends inside packet 3"),
        (GOOD[:30], "truncated, it ends inside packet 1"),
        (gzip.compress(GOOD, mtime=0)[:-20], "truncated, the gzip data end early"),
        (gzip.compress(GOOD, mtime=0)[:5], "truncated, the gzip data end early"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "damaged gzip data"),
        (GOOD[:32] + b"\xff" * 8 + GOOD[40:], "damaged, packet 1 claims 4294967295 bytes"),
        (GOOD[:24], "holds no packets"),
        (pcap([at(0)] * 5), "has no times, all 5 packets carry the same"),
        (pcap([Sent(0, at(0).data, 60)] * 2), "has no times, all 2 packets carry the same"),
        (pcap([at(0), at(10**9), at(871_999_999), at(2 * 10**9)]), "time goes back by 0.128 s at packet 3"),
        (pcapng([at(5 * 10**9), at(0)]), "time goes back by 5.000 s at packet 2"),
        (pcap([at(10**9 - n * 10**8) for n in range(3)]), "time goes back by 0.200 s at packet 3"),
        (pcap(THREE, link=105), "link type 105 is not supported"),
        (pcapng(THREE)[:-4], "truncated, it ends inside packet 2"),
        (pcapng(THREE)[:10], "truncated, it ends inside its header"),
        (section("<"), "holds no packets"),
        (section("<") + enhanced("<", 0, b"", 60), "damaged, packet 1 does not fit its block"),
        (
            section("<") + interface("<") + block("<", 6, struct.pack("<5I", 0, 0, 0, 40, 40) + b"\0" * 32),
            "damaged, packet 1 does not fit its block",
        ),
        (section("<") + block("<", 3, b"\0" * 8), "simple packet blocks have no arrival times"),
        (section("<") + struct.pack("<II", 6, 8), "damaged, a block after packet 0 has length 8"),
        (section("<") + struct.pack("<II", 1, 12) + struct.pack("<I", 12), "damaged capture record"),
        (section("<").replace(b"\x01\0\0\0\xff", b"\x02\0\0\0\xff"), "not a pcapng capture of version 1"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line_with_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    name = write(tmp_path, content)
    with pytest.raises(CaptureError, match=re.escape(message)) as caught:
        capture.load(name, "")
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_a_missing_file_names_the_bundled_captures(tmp_path: Path) -> None:
    missing = str(tmp_path / "tcp_bulc")
    with pytest.raises(CaptureError, match=r"tcp_bulc'?: No such file.*bundled capture \(tcp_bulk\)"):
        capture.load(missing, "")
    with pytest.raises(CaptureError, match="No such file"):
        capture.resolve(missing)
    with pytest.raises(CaptureError, match="No such file"):
        capture.digest(missing)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="a directory, not a file"):
        capture.load(str(tmp_path), "")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaptureError, match="not a regular file"):
        capture.load(str(tmp_path / "pipe"), "")
    with pytest.raises(CaptureError, match="no valid file name"):
        capture.load("a\0b", "")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
def test_an_unreadable_file_is_refused_in_one_line() -> None:
    with pytest.raises(CaptureError, match=r"/proc/self/mem: cannot be read \(.*\); check the file"):
        capture.load("/proc/self/mem", "")


def test_an_empty_direction_names_the_frequent_destinations(tmp_path: Path) -> None:
    name = write(tmp_path, pcap(THREE))
    expected = r"none of its 3 packets is for 10\.0\.0\.3; .*: 10\.0\.0\.2 \(2\), 10\.0\.0\.9 \(1\)$"
    with pytest.raises(CaptureError, match=expected):
        capture.load(name, "10.0.0.3")
    with pytest.raises(CaptureError, match=r"is from 10\.0\.0\.2; .*capture_source .*: 10\.0\.0\.1 \(3\)$"):
        capture.load(name, "", "10.0.0.2")
    expected = (
        r"is from 10\.0\.0\.2 for 10\.0\.0\.1; choose traffic\.capture_source and "
        r"traffic\.capture_destination from its most frequent: 10\.0\.0\.1 to 10\.0\.0\.2 \(2\), "
    )
    with pytest.raises(CaptureError, match=expected):
        capture.load(name, "10.0.0.1", "10.0.0.2")
    arp = write(tmp_path, pcap([Sent(0, ethernet(0x0806, b"\0" * 28), 42)]), "arp")
    with pytest.raises(CaptureError, match="none has an IP address"):
        capture.load(arp, "10.0.0.3")


@pytest.mark.parametrize("destination", ["10.77.0", "host.example", "10.0.0.1/24", " "])
def test_a_destination_that_is_no_address_is_refused(destination: str) -> None:
    with pytest.raises(CaptureError, match=f"capture destination '{destination}': not an IP address; write"):
        capture.load("tcp_bulk", destination)
    with pytest.raises(CaptureError, match=f"capture source '{destination}': not an IP address; write"):
        capture.load("tcp_bulk", "", destination)


@settings(max_examples=200, deadline=None)
@given(
    writer=st.sampled_from(
        [pcap(THREE), pcapng(THREE), pcapng(THREE, ">"), gzip.compress(pcap(THREE), mtime=0)]
    ),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    length=st.integers(0, 400),
)
def test_damage_of_any_kind_is_a_capture_error_or_read_in_order(
    tmp_path_factory: pytest.TempPathFactory, writer: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(writer)
    for place, value in changes:
        content[place % len(content)] = value
    name = write(tmp_path_factory.mktemp("damaged"), bytes(content[:length] if length else content))
    with suppress(CaptureError):
        read = capture.load(name, "")
        assert (np.diff(read.arrival_ns) >= 0).all()
        assert (read.frame_bytes >= 64).all()
