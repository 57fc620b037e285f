"""The fields of a trial: type, default, range and one line of description each.

A tree of frozen pydantic models, by group; sweeps, the command line and the store address its leaves by
dotted name (``pool.size``). Rules between fields are in ``rules``, what follows from them in ``derived``.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pool_impl.release import DEFAULT_RELEASE, RELEASES

Value = int | float | str | bool

NIC_WORKLOAD = "nic"

KERNEL_VARIANT = "kernel"
"""the pool as the release has it"""


def _known_release(kernel: str) -> str:
    if kernel not in RELEASES:
        raise ValueError
    return kernel


class Group(BaseModel):
    """Fields that have a prefix in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PoolConfig(Group):
    """The page_pool of the receive queue."""

    size: Annotated[
        int,
        Field(ge=0, le=1 << 20, description="ring capacity in pages; 0 means 1024, the release clamps"),
    ] = 1024
    recycle: Annotated[
        bool,
        Field(description="mark skbs for recycling; false releases each page with its packet"),
    ] = True
    slow_batch: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="pages that a slow allocation asks the page allocator for at the most; 0: as many as "
            "a refill brings, 64 in the kernel; 1: one alone and not in bulk, as before 5.13",
        ),
    ] = 0
    variant: Annotated[
        str,
        Field(
            description="who decides on cache and recycling: kernel, ring_capped, local_only, near_only, "
            "page_decides, or FILE.py:CLASS, a file of yours"
        ),
    ] = KERNEL_VARIANT


class NicConfig(Group):
    """The receive side of the NIC."""

    rx_ring: Annotated[int, Field(ge=64, le=16384, description="receive descriptors, a power of two")] = 512
    rx_usecs: Annotated[
        int,
        Field(ge=0, le=10_000, description="interrupt moderation: microseconds from packet to interrupt"),
    ] = 8
    rx_frames: Annotated[
        int,
        Field(ge=0, le=4096, description="interrupt moderation: packets that interrupt at once, 0 for never"),
    ] = 0
    moderation: Annotated[
        Literal["fixed", "adaptive"],
        Field(
            description="interrupt moderation: by rx_usecs and rx_frames, or adaptive as Linux's net_dim, "
            "which chooses 1 to 256 us and 256 frames"
        ),
    ] = "fixed"
    napi: Annotated[
        Literal["softirq", "threaded", "busy-poll"],
        Field(
            description="who polls: the softirq after an interrupt, a thread that it wakes, or the "
            "application on its own CPU, which never sleeps"
        ),
    ] = "softirq"
    budget: Annotated[
        int, Field(ge=1, le=1024, description="packets handled by one NAPI poll at the most")
    ] = 64
    queues: Annotated[
        int,
        Field(
            ge=1,
            le=16,
            description="receive queues, each with its own CPU and pool; RSS by the hash of a packet's flow",
        ),
    ] = 1
    link_gbps: Annotated[
        int,
        Field(ge=1, le=400, description="link rate in Gbit/s, preamble and gap included; paces bursts"),
    ] = 10
    tx_ring: Annotated[
        int,
        Field(
            ge=64,
            le=16384,
            description="transmit descriptors of a ring, a power of two; one ring for each receive queue, "
            "and for each xdp.redirect_cpus of the device that frames are redirected to",
        ),
    ] = 512
    tx_gbps: Annotated[
        int,
        Field(
            ge=0,
            le=400,
            description="rate in Gbit/s at which this device and one that frames are redirected to send; "
            "0: nic.link_gbps",
        ),
    ] = 0
    tso: Annotated[
        bool,
        Field(
            description="TCP segmentation offload: the NIC cuts merged packets up as it sends them "
            "(app.reader = forward); false: software does, into skbs that share the pages by reference"
        ),
    ] = True
    hw_gro: Annotated[
        bool,
        Field(
            description="the NIC merges TCP packets of a flow before the driver sees them (ethtool's "
            "rx-gro-hw): headers once, payload after payload into the same pages"
        ),
    ] = False
    hw_gro_usecs: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="microseconds from its first packet after which the NIC completes what it merges",
        ),
    ] = 32
    hw_gro_flows: Annotated[
        int,
        Field(
            ge=1,
            le=256,
            description="flows that the NIC merges at a time, by queue; one more completes the oldest",
        ),
    ] = 64


class DriverConfig(Group):
    """How the driver uses the pool."""

    model: Annotated[
        Literal[
            "page-per-packet",
            "replace-before-pass",
            "fragments",
            "header-split",
            "split",
            "page-allocator",
            "slab",
            "split-unpooled",
        ],
        Field(
            description="receive pattern: page-per-packet refills after the poll, as mvneta; "
            "replace-before-pass has a new page before it lets go of the packet's, as mvpp2; "
            "fragments has several buffers in a page, as hns3; header-split has headers in parts of pages "
            "and payload in pages of another pool; split has a page that the driver itself cuts into several "
            "buffers and keeps until the last is used, as mlx5; without a pool: page-allocator has a page, "
            "slab part of a block of the network core for each packet, split-unpooled splits pages as split"
        ),
    ] = "page-per-packet"
    buffer_bytes: Annotated[
        Literal[512, 1024, 2048, 4096, 8192],
        Field(
            description="buffer of each descriptor: 1024 to 4096 for fragments and split pages, at most a "
            "page; slab has 2048, of which 1536 for an Ethernet frame, 512 for short ones, 128, as mvpp2, or "
            "8192 where the device takes one size for all frames"
        ),
    ] = 2048
    copybreak_bytes: Annotated[
        Annotated[int, Field(ge=0, le=1024)] | Literal["usual"],
        Field(
            description="packets up to this many bytes are copied and their buffer is posted again; "
            "0: none; usual: as in the modelled driver, 256 for fragments and else 0"
        ),
    ] = "usual"
    skb_head: Annotated[
        Literal["buffer", "copied"],
        Field(
            description="linear part of an skb of split pages: buffer: the first buffer, which needs "
            "headroom and room for shared info; copied: a head of its own for the packet's first 256 bytes; "
            "buffers are fragments back to back then, as in mlx5's striding queues"
        ),
    ] = "buffer"
    page_cache: Annotated[
        int,
        Field(
            ge=0,
            le=4096,
            description="slots of a ring of mapped pages that the driver keeps for itself, a power of two: "
            "256 in mlx5 until 6.3, 0 for none. The oldest page is used again if no skb has it any more. For "
            "split and page-per-packet with pool.recycle = false, split-unpooled and page-allocator",
        ),
    ] = 0
    sync: Annotated[
        Literal["pool", "driver"],
        Field(
            description="who syncs a buffer for the device: the pool, when a page is mapped and when it "
            "returns, or the driver, when it posts the page"
        ),
    ] = "pool"
    sync_bytes: Annotated[
        Annotated[int, Field(ge=0, le=4096)] | Literal["usual"],
        Field(
            description="most that one sync for the device covers, the pool's max_len; 0: none is made, "
            "which only an experiment may do; usual: all that the device may write to a buffer"
        ),
    ] = "usual"
    pool_node: Annotated[
        Literal["local", "update", "device"],
        Field(
            description="node of which the pool wants pages: local: the CPU's, at each refill and bulk "
            "(nid -1); update: likewise, and the driver tells the pool when its poll runs on another node "
            "(page_pool_nid_changed, as mlx5); device: the NIC's, wherever polls run"
        ),
    ] = "local"


class NumaConfig(Group):
    """Memory nodes of the machine, and who is on which."""

    nodes: Annotated[
        int,
        Field(ge=1, le=2, description="memory nodes, a socket each; as many as the profile's sockets allow"),
    ] = 1
    nic: Annotated[int, Field(ge=0, le=1, description="node that the NIC is attached to")] = 0
    queues: Annotated[
        int, Field(ge=0, le=1, description="node of the CPUs of the receive queues' interrupts and polls")
    ] = 0
    readers: Annotated[
        int, Field(ge=0, le=1, description="node of readers that have CPUs of their own, and of the tap's")
    ] = 0
    steering: Annotated[
        int, Field(ge=0, le=1, description="node of the CPUs of stack.rps and xdp.redirect_cpus")
    ] = 0


class XdpConfig(Group):
    """The XDP program of the receive queues."""

    attached: Annotated[
        bool,
        Field(description="run a program also if it passes all packets; implied by any other verdict"),
    ] = False
    pass_percent: Annotated[
        int, Field(ge=0, le=100, description="share of packets that go on to the stack")
    ] = 100
    drop_percent: Annotated[
        int, Field(ge=0, le=100, description="share that the program drops; the four shares add up to 100")
    ] = 0
    tx_percent: Annotated[
        int, Field(ge=0, le=100, description="share that goes out again through the queue's transmit ring")
    ] = 0
    redirect_percent: Annotated[
        int, Field(ge=0, le=100, description="share that is redirected to xdp.redirect_to")
    ] = 0
    redirect_to: Annotated[
        Literal["", "device", "cpumap", "af_xdp"],
        Field(
            description="device: another one's transmit ring, cleaned on its own CPU; cpumap: a kthread on "
            "another CPU that makes skbs of frames; af_xdp: a socket in copy mode whose consumer keeps up"
        ),
    ] = ""
    redirect_cpus: Annotated[
        int,
        Field(
            ge=1,
            le=16,
            description="CPUs of the target: kthreads of the CPU map, or transmit rings of the other device, "
            "each on a CPU of its own",
        ),
    ] = 1
    cpumap_frames: Annotated[
        int, Field(ge=8, le=16384, description="frames that may wait for a kthread of the CPU map")
    ] = 2048


class TrafficConfig(Group):
    """What arrives on the wire."""

    kind: Annotated[
        Literal["constant", "poisson", "bursts", "ramp", "saturation", "capture", "window"],
        Field(
            description="arrival process; ramp is poisson at a rate that changes evenly over the trial; "
            "saturation has a packet waiting for every free descriptor; window has TCP senders that stop at "
            "the receiver's window and go on as the application reads"
        ),
    ] = "poisson"
    rate_pps: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000_000,
            description="mean packets per second (constant, poisson, bursts), or those at the start (ramp)",
        ),
    ] = 400_000
    ramp_to_pps: Annotated[
        int, Field(ge=1, le=1_000_000_000, description="packets per second at the end of a ramp")
    ] = 800_000
    packet_size: Annotated[
        Annotated[int, Field(ge=64, le=9018)] | Literal["imix"],
        Field(
            description="frame bytes with FCS, or imix (7 x 64, 4 x 594, 1 x 1518); what exceeds a buffer "
            "goes on in the next descriptor's"
        ),
    ] = 64
    burst_packets: Annotated[
        int, Field(ge=1, le=1_000_000, description="mean packets of a burst, which arrives at link rate")
    ] = 1024
    flows: Annotated[
        int,
        Field(ge=1, le=65_536, description="flows at a time; the hash of a packet's flow picks its queue"),
    ] = 1
    flow_skew: Annotated[
        float,
        Field(
            ge=0,
            le=4,
            description="Zipf exponent of the flows' popularity: the n-th sends 1/n^skew of what the first "
            "sends; 0: all send as much",
        ),
    ] = 0.0
    flow_packets: Annotated[
        int,
        Field(
            ge=0,
            le=10_000_000,
            description="mean packets until a flow ends and a new one takes its place, heavy-tailed; "
            "0: flows never end",
        ),
    ] = 0
    train_packets: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            description="mean packets of one flow back to back (geometric), as a sender's TSO makes them; "
            "window: the most, until another flow's turn",
        ),
    ] = 1
    window_bytes: Annotated[
        int,
        Field(
            ge=0,
            le=1 << 30,
            description="window: payload of a flow that may be sent and not yet read; 0: half of "
            "app.socket_bytes, as tcp_adv_win_scale = 1 has it, shared evenly by the flows of a socket",
        ),
    ] = 0
    rtt_us: Annotated[
        int,
        Field(
            ge=1,
            le=10_000_000,
            description="window: from a read until the next segment of its flow can arrive",
        ),
    ] = 100
    rto_ms: Annotated[
        int,
        Field(
            ge=1,
            le=120_000,
            description="window: from a drop until the segment can arrive again; Linux waits at least 200, "
            "and 120000 at the most",
        ),
    ] = 200
    capture: Annotated[
        str,
        Field(description="what to replay: a bundled name, or a pcap or pcapng file, gzip allowed"),
    ] = "tcp_bulk"
    capture_destination: Annotated[
        str, Field(description="replay only packets to this IP address; empty: all packets")
    ] = ""
    capture_source: Annotated[
        str, Field(description="replay only packets from this IP address; empty: all packets")
    ] = ""
    speed: Annotated[
        float,
        Field(ge=0.001, le=1e6, description="replay speed; 2.0 halves the time between packets"),
    ] = 1.0
    loops: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="how often to replay the capture; a pass starts a mean gap after the one before",
        ),
    ] = 1


class StackConfig(Group):
    """The network stack between driver and socket."""

    gro: Annotated[
        bool,
        Field(description="GRO merges TCP packets of a flow within a poll; without, it is left out"),
    ] = False
    rps: Annotated[
        int,
        Field(
            ge=0,
            le=8,
            description="CPUs of their own that receive packet steering spreads protocol work over; 0: off",
        ),
    ] = 0
    capture_percent: Annotated[
        int,
        Field(ge=0, le=100, description="share of packets cloned to a packet socket, as tcpdump's; drawn"),
    ] = 0
    capture_work_ns: Annotated[
        int,
        Field(ge=0, le=1_000_000_000, description="time the packet socket's reader works on a clone"),
    ] = 1_000
    capture_bytes: Annotated[
        int,
        Field(ge=2304, le=1 << 30, description="receive buffer limit of the packet socket"),
    ] = 212_992


class AppConfig(Group):
    """Who consumes the packets."""

    reader: Annotated[
        Literal["drop", "raw", "udp-no-port", "fast", "slow", "stalled", "hold", "forward"],
        Field(
            description="drop: dropped before IP, as of an unknown type; raw: by iptables' raw table; "
            "udp-no-port: for want of a socket; fast: a socket reader that only receives; slow: one that "
            "works app.work_ns on each packet; stalled: slow, and at times it does not read; hold: slow, and "
            "it frees late; forward: none, packets are routed and sent again"
        ),
    ] = "drop"
    protocol: Annotated[
        Literal["udp", "tcp"],
        Field(
            description="tcp: a socket's last skb takes in the next of its flow, and what another CPU reads "
            "is freed where it was allocated (5.19 and later); a full socket drops, but see traffic.kind = "
            "window"
        ),
    ] = "udp"
    stall_ms: Annotated[
        int, Field(ge=1, le=600_000, description="how long a stalled reader does not read")
    ] = 1
    stall_every_ms: Annotated[
        int,
        Field(ge=2, le=600_000, description="period of the stalls, each of which is at a period's end"),
    ] = 10
    hold_packets: Annotated[
        int,
        Field(
            ge=1, le=65_536, description="received skbs that a hold reader has not freed yet, the last ones"
        ),
    ] = 256
    hold_percent: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="share of received skbs that the application frees only after app.hold_ms, as if "
            "they waited for one that was lost; drawn",
        ),
    ] = 0
    hold_ms: Annotated[
        int, Field(ge=1, le=600_000, description="how long it keeps them, at most 65536 of a socket")
    ] = 10
    readers: Annotated[
        int,
        Field(ge=1, le=16, description="sockets, each with its own reader; a packet's flow decides which"),
    ] = 1
    reader_cpu: Annotated[
        Literal["same", "other"],
        Field(description="CPU of each reader: that of a receive queue, in turn, or one of its own"),
    ] = "other"
    slice_us: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="CPU time that polls of a queue that is never empty take before a reader on its "
            "CPU has as much: the scheduler's slice, 3000 in Linux on eight CPUs or more; 0: each poll's",
        ),
    ] = 3000
    work_ns: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000_000,
            description="time a slow, stalled or hold reader works on a packet; the mean if it is drawn",
        ),
    ] = 2_500
    work_distribution: Annotated[
        Literal["constant", "exponential"],
        Field(description="of that work: the same for each packet, or drawn with that mean"),
    ] = "constant"
    socket_bytes: Annotated[
        int,
        Field(ge=2304, le=1 << 30, description="receive buffer limit, counted in truesize as SO_RCVBUF"),
    ] = 212_992


class LifeConfig(Group):
    """What happens to the device during the trial."""

    event: Annotated[
        Literal["none", "down", "resize", "irq-moved"],
        Field(
            description="the device goes down for good, or comes up again with life.rx_ring and life.queues "
            "and new pools; irq-moved: its interrupts, and with them the polls, move to the node where "
            "numa.queues is not"
        ),
    ] = "none"
    at_ms: Annotated[int, Field(ge=1, le=600_000, description="when that happens")] = 5
    down_ms: Annotated[
        int, Field(ge=0, le=600_000, description="how long it is down (life.event = resize)")
    ] = 1
    rx_ring: Annotated[
        int, Field(ge=0, le=16384, description="receive descriptors after that, 0 for as many as before")
    ] = 0
    queues: Annotated[int, Field(ge=0, le=16, description="receive queues after that, 0 likewise")] = 0


class MemoryConfig(Group):
    """Memory that receive buffers can get."""

    pages: Annotated[
        int,
        Field(ge=0, le=1 << 24, description="pages that exist for all pools and packets, 0 for plenty"),
    ] = 0
    reserves_at_ms: Annotated[
        int,
        Field(ge=0, le=600_000, description="when free memory runs out: new pages are emergency ones"),
    ] = 0
    reserves_ms: Annotated[int, Field(ge=0, le=600_000, description="how long that lasts, 0 for never")] = 0


class MachineConfig(Group):
    """What is changed of the profile's machine; the defaults leave it as it is."""

    iommu: Annotated[
        Literal["off", "passthrough", "lazy", "strict"],
        Field(
            description="off and passthrough: DMA by memory addresses; strict: an unmapping invalidates the "
            "device's translation and waits for it; lazy: one invalidation for up to 255 unmappings of a "
            "CPU, or those of 10 ms"
        ),
    ] = "off"
    swiotlb: Annotated[
        bool, Field(description="the device does not reach the memory: bounce buffers, which the CPU copies")
    ] = False
    page_bytes: Annotated[
        Literal[0, 4096, 16384, 65536],
        Field(description="size of a page of the kernel, 0: as in the profile"),
    ] = 0
    clock_mhz: Annotated[
        Annotated[int, Field(ge=100, le=10_000)] | Literal[0],
        Field(
            description="core clock, 0: as in the profile; caches beyond level 2, memory and devices keep "
            "their time"
        ),
    ] = 0
    mitigation: Annotated[
        Literal["off", "on"],
        Field(description="return mitigation: each call takes mitigated_call_ns and not call_ns"),
    ] = "off"
    ddio: Annotated[
        Literal["profile", "on", "off"],
        Field(
            description="where the device writes to: on: the last-level cache's share for DMA, a tenth of it "
            "where the profile has none; off: memory"
        ),
    ] = "profile"


class TrialFields(Group):
    """All fields of a trial, unchecked between each other."""

    workload: Annotated[
        Literal["nic", "pool_fast", "pool_ring", "pool_slow", "page_single", "page_bulk"],
        Field(
            description="packets through a NIC, or a loop of the page_pool benchmark: one page a turn "
            "from and to the cache, the ring or the page allocator, or one or 64 at a time without a pool"
        ),
    ] = "nic"
    arch: Annotated[str, Field(description="architecture profile, see farm arch list")] = "broadwell-ep"
    kernel: Annotated[
        str,
        AfterValidator(_known_release),
        Field(description="release whose page_pool rules apply", json_schema_extra={"enum": [*RELEASES]}),
    ] = DEFAULT_RELEASE
    duration_ms: Annotated[
        int,
        Field(ge=1, le=600_000, description="simulated time; a capture that ends earlier ends the trial"),
    ] = 20
    warmup_ms: Annotated[
        int, Field(ge=0, le=600_000, description="start of the trial that is left out of every measure")
    ] = 2
    seed: Annotated[
        int, Field(ge=0, lt=1 << 63, description="seed of the random draws; a sweep sets it from its seeds")
    ] = 0
    pool: PoolConfig = PoolConfig()
    nic: NicConfig = NicConfig()
    driver: DriverConfig = DriverConfig()
    numa: NumaConfig = NumaConfig()
    xdp: XdpConfig = XdpConfig()
    traffic: TrafficConfig = TrafficConfig()
    stack: StackConfig = StackConfig()
    app: AppConfig = AppConfig()
    life: LifeConfig = LifeConfig()
    memory: MemoryConfig = MemoryConfig()
    machine: MachineConfig = MachineConfig()
