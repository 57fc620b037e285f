"""What follows from the fields of a trial: who takes part, what is drawn, what a link carries."""

from typing import NamedTuple

from workers.fields.groups import KERNEL_VARIANT, NIC_WORKLOAD, TrialFields

WIRE_OVERHEAD_BYTES = 20
"""preamble and start delimiter (8) and inter-frame gap (12) around each Ethernet frame"""

FRAGMENT_MODELS = ("fragments", "header-split")
PAGE_MODELS = ("page-per-packet", "replace-before-pass")
SPLIT_MODELS = ("split", "split-unpooled")
UNPOOLED_MODELS = ("page-allocator", "slab", "split-unpooled")

TCP_HEADERS_BYTES = 54
"""Ethernet, IPv4 and TCP without options"""

BESIDE_DATA_BYTES = 256 + 320
"""of a page that a packet has to itself, that the device may not write: headroom and shared info"""

SLAB_FRAME_BYTES = {512: 128, 2048: 1536, 8192: 8192}
"""what a device may write to a buffer of a driver without pages, by driver.buffer_bytes; headroom and shared
info are a part of mvpp2's two sizes, and beside the 8192 of a device that takes one size for all frames"""

IMIX_BYTES = (64,) * 7 + (594,) * 4 + (1518,)
"""the simple IMIX of 7:4:1 as Ethernet frames with FCS"""

MEAN_IMIX_BYTES = sum(IMIX_BYTES) // len(IMIX_BYTES)

TRANSLATING = ("lazy", "strict")
"""values of machine.iommu in which addresses of the device are not those of memory"""

DROPPING_READERS = ("drop", "raw", "udp-no-port")

WORKING_READERS = ("slow", "stalled", "hold")
"""readers that work app.work_ns on a packet"""

CPU_ROLES = {
    "nic.queues": "queue",
    "app.readers": "reader",
    "stack.capture_percent": "tap",
    "stack.rps": "rps",
    "xdp.redirect_cpus": "target",
    "life.event": "new irq",
}
"""what CPUs are called, by the field that asks for them"""

SEED_FIELDS = (
    "workload",
    "traffic.kind",
    "traffic.packet_size",
    "traffic.flows",
    "traffic.flow_packets",
    "app.reader",
    "app.work_distribution",
    "xdp.pass_percent",
    "xdp.drop_percent",
    "xdp.tx_percent",
    "xdp.redirect_percent",
    "stack.capture_percent",
    "app.hold_percent",
)
"""what decides whether the seed matters, see :func:`seed_matters`"""

INPUT_FIELDS = (
    "arch",
    "pool.variant",
    "traffic.kind",
    "traffic.capture",
    "traffic.capture_destination",
    "traffic.capture_source",
)
"""what decides which files a trial reads, see ``workers.inputs``"""


def seed_matters(config: TrialFields) -> bool:
    """Whether anything in this trial is drawn at random; if not, one seed stands for all."""
    traffic, app = config.traffic, config.app
    if config.workload != NIC_WORKLOAD:
        return False
    if app.reader in WORKING_READERS and app.work_distribution == "exponential":
        return True
    if 0 < config.stack.capture_percent < 100 or (0 < app.hold_percent < 100 and reads_sockets(config)):
        return True
    if draws_verdicts(config):
        return True
    if traffic.kind == "capture":
        return False
    if draws_flows(config):
        return True
    return traffic.kind in ("poisson", "bursts", "ramp") or traffic.packet_size == "imix"


def draws_flows(config: TrialFields) -> bool:
    """Whether a packet's flow is drawn: with one flow that never ends there is nothing to draw."""
    traffic = config.traffic
    return traffic.kind != "capture" and (traffic.flows > 1 or traffic.flow_packets > 0)


def keeps_to_windows(config: TrialFields) -> bool:
    """Whether senders stop at the receiver's window."""
    return config.traffic.kind == "window"


def segment_bytes(config: TrialFields) -> int:
    """Payload of each segment that such a sender sends."""
    return int(config.traffic.packet_size) - TCP_HEADERS_BYTES


def attaches_program(config: TrialFields) -> bool:
    """Whether an XDP program runs on each packet."""
    return config.xdp.attached or config.xdp.pass_percent < 100


def draws_verdicts(config: TrialFields) -> bool:
    """Whether XDP verdicts are drawn: where not all packets get the same."""
    xdp = config.xdp
    return 100 not in (xdp.pass_percent, xdp.drop_percent, xdp.tx_percent, xdp.redirect_percent)


def merges_in_hardware(config: TrialFields) -> bool:
    """Whether the NIC finds anything to merge: it leaves other protocols alone."""
    return config.nic.hw_gro and config.app.protocol == "tcp"


def merges(config: TrialFields) -> bool:
    """Whether skbs may have several packets before they come to a socket."""
    return config.stack.gro or merges_in_hardware(config)


def cuts_up(config: TrialFields) -> bool:
    """Whether software may have to cut merged packets up to send them: where the NIC cannot, and where GRO
    makes lists of skbs, which no NIC takes."""
    if config.app.reader != "forward" or config.app.protocol != "tcp":
        return False
    return config.stack.gro or (config.nic.hw_gro and not config.nic.tso)


def moves_interrupts(config: TrialFields) -> bool:
    """Whether polls move to CPUs that they have not run on."""
    return config.life.event == "irq-moved"


def most_queues(config: TrialFields) -> int:
    """Receive queues that there are before or after a change."""
    return max(config.nic.queues, config.life.queues)


def keeps_by_reference(config: TrialFields) -> bool:
    """Whether the driver keeps pages that skbs have plain references to, and maps them itself."""
    driver = config.driver
    if driver.page_cache > 0 or driver.model == "split-unpooled":
        return True
    return driver.model == "split" and not config.pool.recycle


def has_layers(config: TrialFields) -> bool:
    """Whether there is anything between the device and memory."""
    return config.machine.swiotlb or config.machine.iommu in TRANSLATING


class Loop(NamedTuple):
    """What the event loop is compiled for."""

    variant: str = KERNEL_VARIANT
    nodes: int = 1
    """memory nodes: one, or several"""
    layers: bool = False
    """see :func:`has_layers`; with several nodes it is compiled for them anyway"""


def loop_of(config: TrialFields) -> Loop:
    """The loop that a trial needs."""
    nodes = min(config.numa.nodes, 2)
    return Loop(config.pool.variant, nodes, nodes == 1 and has_layers(config))


def cpus_wanted(config: TrialFields) -> dict[str, int]:
    """CPUs that take part, by the field that asks for them, in the order of their numbers."""
    app, stack = config.app, config.stack
    return {
        "nic.queues": most_queues(config),
        "app.readers": app.readers if reads_sockets(config) and app.reader_cpu == "other" else 0,
        "stack.capture_percent": int(stack.capture_percent > 0),
        "stack.rps": stack.rps,
        "xdp.redirect_cpus": config.xdp.redirect_cpus if redirects_to_cpus(config) else 0,
        "life.event": config.nic.queues if moves_interrupts(config) else 0,
    }


def cpu_roles(config: TrialFields) -> list[str]:
    """What each CPU is there for, by its number; one that polls a queue may read its socket too."""
    if config.workload != NIC_WORKLOAD:
        return ["loop 0"]
    wanted = cpus_wanted(config)
    return [f"{CPU_ROLES[field]} {number}" for field, cpus in wanted.items() for number in range(cpus)]


def redirects_to_cpus(config: TrialFields) -> bool:
    """Whether XDP frames go to targets with CPUs of their own."""
    return config.xdp.redirect_percent > 0 and config.xdp.redirect_to in ("device", "cpumap")


def fills_cpumap(config: TrialFields) -> bool:
    """Whether kthreads of the CPU map make skbs."""
    return config.xdp.redirect_percent > 0 and config.xdp.redirect_to == "cpumap"


def reads_sockets(config: TrialFields) -> bool:
    """Whether packets come to a socket, and are not dropped before."""
    return config.app.reader not in (*DROPPING_READERS, "forward")


def most_packets_per_second(config: TrialFields) -> int:
    """What the link carries of frames of this size."""
    size = config.traffic.packet_size
    frame_bytes = MEAN_IMIX_BYTES if isinstance(size, str) else size
    return config.nic.link_gbps * 10**9 // ((frame_bytes + WIRE_OVERHEAD_BYTES) * 8)
