"""The fields of a trial: type, default, rule and one line of description each.

A trial's configuration is a tree of frozen pydantic models; sweeps, the command line and the store
address its leaves by dotted name (``pool.size``). :meth:`TrialConfig.from_fields` is the one door:
it fills in defaults, checks every field, then the rules between fields, and raises
:class:`~workers.errors.ConfigError` with the field, the value and the remedy.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pool_impl.layout import MAX_CPUS
from pool_impl.release import DEFAULT_RELEASE, RELEASES
from workers.errors import ConfigError

Value = int | float | str | bool

NIC_WORKLOAD = "nic"

KERNEL_VARIANT = "kernel"
"""the pool as the release has it"""


def _known_release(kernel: str) -> str:
    if kernel not in RELEASES:
        raise ValueError
    return kernel


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PoolConfig(_Group):
    """The page_pool of the receive queue."""

    size: Annotated[
        int,
        Field(ge=0, le=1 << 20, description="ring capacity in pages; 0 means 1024, the release clamps"),
    ] = 1024
    recycle: Annotated[
        bool,
        Field(description="mark skbs for recycling; false releases each page with its packet"),
    ] = True
    variant: Annotated[
        str,
        Field(
            description="who decides on cache and recycling: kernel, ring_capped, local_only, page_decides, "
            "or FILE.py:CLASS, a file of yours"
        ),
    ] = KERNEL_VARIANT


class NicConfig(_Group):
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


class DriverConfig(_Group):
    """How the driver uses the pool."""

    model: Annotated[
        Literal["page-per-packet", "replace-before-pass"],
        Field(
            description="receive pattern: page-per-packet refills after the poll, as mvneta; "
            "replace-before-pass has a new page before it lets go of the packet's, as mvpp2"
        ),
    ] = "page-per-packet"
    sync: Annotated[
        Literal["pool", "driver"],
        Field(
            description="who syncs a buffer for the device: the pool, when a page is mapped and when it "
            "returns, or the driver, when it posts the page"
        ),
    ] = "pool"


class XdpConfig(_Group):
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


class TrafficConfig(_Group):
    """What arrives on the wire."""

    kind: Annotated[
        Literal["constant", "poisson", "bursts", "ramp", "saturation", "capture"],
        Field(
            description="arrival process; ramp is poisson at a rate that changes evenly over the trial; "
            "saturation has a packet waiting for every free descriptor"
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
        Annotated[int, Field(ge=64, le=1518)] | Literal["imix"],
        Field(description="frame bytes with FCS, or imix (7 x 64, 4 x 594, 1 x 1518)"),
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
            description="mean packets of one flow back to back (geometric), as a sender's TSO makes them",
        ),
    ] = 1
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


class StackConfig(_Group):
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


class AppConfig(_Group):
    """Who consumes the packets."""

    reader: Annotated[
        Literal["drop", "udp-no-port", "fast", "slow", "stalled", "hold", "forward"],
        Field(
            description="drop: early drop in the stack, as by the raw table; udp-no-port: dropped for want "
            "of a socket; fast: a socket reader that only receives; slow: one that works app.work_ns on "
            "each packet; stalled: slow, and at times it does not read; hold: slow, and it frees late; "
            "forward: none, packets are routed and sent again"
        ),
    ] = "drop"
    protocol: Annotated[
        Literal["udp", "tcp"],
        Field(
            description="tcp: a socket's last skb takes in the next of its flow, and what another CPU reads "
            "is freed where it was allocated (5.19 and later); no windows: a full socket drops"
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
    readers: Annotated[
        int,
        Field(ge=1, le=16, description="sockets, each with its own reader; a packet's flow decides which"),
    ] = 1
    reader_cpu: Annotated[
        Literal["same", "other"],
        Field(description="CPU of each reader: that of a receive queue, in turn, or one of its own"),
    ] = "other"
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


class LifeConfig(_Group):
    """What happens to the device during the trial."""

    event: Annotated[
        Literal["none", "down", "resize"],
        Field(
            description="the device goes down for good, or comes up again with life.rx_ring and life.queues "
            "and new pools"
        ),
    ] = "none"
    at_ms: Annotated[int, Field(ge=1, le=600_000, description="when the device goes down")] = 5
    down_ms: Annotated[
        int, Field(ge=0, le=600_000, description="how long it is down (life.event = resize)")
    ] = 1
    rx_ring: Annotated[
        int, Field(ge=0, le=16384, description="receive descriptors after that, 0 for as many as before")
    ] = 0
    queues: Annotated[int, Field(ge=0, le=16, description="receive queues after that, 0 likewise")] = 0


class MemoryConfig(_Group):
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


class TrialConfig(_Group):
    """One trial: one cell of a sweep with one seed."""

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
    xdp: XdpConfig = XdpConfig()
    traffic: TrafficConfig = TrafficConfig()
    stack: StackConfig = StackConfig()
    app: AppConfig = AppConfig()
    life: LifeConfig = LifeConfig()
    memory: MemoryConfig = MemoryConfig()

    @classmethod
    def from_fields(cls, fields: Mapping[str, Value]) -> Self:
        """Build a checked configuration from dotted names; what is not named has its default.

        Raises:
            ConfigError: unknown name, wrong type, value out of range, or a rule between fields.
        """
        config = cls.unchecked(fields)
        for rule in RULES:
            rule.check(config)
        return config

    @classmethod
    def unchecked(cls, fields: Mapping[str, Value]) -> Self:
        """As :meth:`from_fields`, without the rules between fields (a planner checks those once)."""
        tree: dict[str, Any] = {}
        for name, value in fields.items():
            check_name(name)
            group, _, leaf = name.rpartition(".")
            (tree.setdefault(group, {}) if group else tree)[leaf] = value
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            detail = error.errors()[0]
            name = ".".join(str(part) for part in detail["loc"][:2] if part in _known_parts())
            raise ConfigError(name, detail["input"], _remedy(name)) from None

    def to_fields(self) -> dict[str, Value]:
        """Every leaf by dotted name, in the order of :func:`fields`."""
        tree = self.model_dump()
        return {
            field.name: tree[field.group][field.leaf] if field.group else tree[field.leaf]
            for field in fields()
        }


class TrialField(NamedTuple):
    """One leaf of the configuration, as ``farm fields`` prints it."""

    name: str
    """dotted name"""
    kind: str
    """type and range or choices, in words"""
    default: Value
    description: str
    adapter: TypeAdapter[Any]

    @property
    def group(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    def parse(self, text: str) -> Value:
        """Read a value typed on the command line.

        Raises:
            ConfigError: the text is no value of this field.
        """
        for candidate in (text, _literal(text)):
            try:
                value: Value = self.adapter.validate_python(candidate)
            except ValidationError:
                continue
            return value
        raise ConfigError(self.name, text, _remedy(self.name))


class Rule(NamedTuple):
    """A rule between fields. It reads only the fields it names, so that a planner can check the
    product of just those axes."""

    fields: tuple[str, ...]
    check: Callable[[TrialConfig], None]


def _rx_rings_are_powers_of_two(config: TrialConfig) -> None:
    for name, size in (("nic.rx_ring", config.nic.rx_ring), ("life.rx_ring", config.life.rx_ring)):
        if size & (size - 1):
            raise ConfigError(name, size, f"use a power of two, such as {1 << size.bit_length()}")


def _what_happens_to_the_device_happens_in_the_trial(config: TrialConfig) -> None:
    life = config.life
    if life.event == "none":
        return
    ends_ms = life.at_ms + (life.down_ms if life.event == "resize" else 0)
    if ends_ms >= config.duration_ms or life.at_ms < config.warmup_ms:
        raise ConfigError(
            "life.at_ms",
            life.at_ms,
            f"must leave the warm-up ({config.warmup_ms} ms) before it and be over by duration_ms = "
            f"{config.duration_ms}",
        )


def _only_a_device_that_comes_up_again_changes(config: TrialConfig) -> None:
    life = config.life
    for name in ("rx_ring", "queues"):
        if getattr(life, name) and life.event != "resize":
            raise ConfigError(f"life.{name}", getattr(life, name), "needs life.event = resize")


def _tx_ring_is_a_power_of_two(config: TrialConfig) -> None:
    size = config.nic.tx_ring
    if size & (size - 1):
        raise ConfigError("nic.tx_ring", size, f"use a power of two, such as {1 << size.bit_length()}")


def _verdicts_add_up(config: TrialConfig) -> None:
    xdp = config.xdp
    others = xdp.drop_percent + xdp.tx_percent + xdp.redirect_percent
    if xdp.pass_percent + others != 100:
        remedy = (
            f"use {100 - others}"
            if others <= 100
            else "lower xdp.drop_percent, tx_percent or redirect_percent"
        )
        raise ConfigError(
            "xdp.pass_percent", xdp.pass_percent, f"the four shares have to add up to 100; {remedy}"
        )


def _redirects_have_a_target(config: TrialConfig) -> None:
    xdp = config.xdp
    if xdp.redirect_percent > 0 and not xdp.redirect_to:
        raise ConfigError("xdp.redirect_to", "", "frames are redirected; name device, cpumap or af_xdp")


def _a_device_that_sends_stays_as_it_is(config: TrialConfig) -> None:
    if config.life.event != "none" and (attaches_program(config) or config.app.reader == "forward"):
        raise ConfigError(
            "life.event",
            config.life.event,
            "frames that wait to be sent would need their pools; use none, or neither xdp nor "
            "app.reader = forward",
        )


def _warmup_ends_before_the_trial(config: TrialConfig) -> None:
    if config.warmup_ms >= config.duration_ms:
        raise ConfigError("warmup_ms", config.warmup_ms, f"must be below duration_ms = {config.duration_ms}")


def _offered_load_fits_the_link(config: TrialConfig) -> None:
    if config.traffic.kind not in ("saturation", "capture"):
        _check_rate(config, "rate_pps")


def _end_of_the_ramp_fits_the_link(config: TrialConfig) -> None:
    if config.traffic.kind == "ramp":
        _check_rate(config, "ramp_to_pps")


def _check_rate(config: TrialConfig, leaf: str) -> None:
    rate_pps, most = getattr(config.traffic, leaf), most_packets_per_second(config)
    if rate_pps > most:
        raise ConfigError(
            f"traffic.{leaf}",
            rate_pps,
            f"a {config.nic.link_gbps} Gbit/s link carries at most {most} packets/s of this size; "
            "lower it or raise nic.link_gbps",
        )


def most_packets_per_second(config: TrialConfig) -> int:
    """What the link carries of frames of this size."""
    size = config.traffic.packet_size
    frame_bytes = MEAN_IMIX_BYTES if isinstance(size, str) else size
    return config.nic.link_gbps * 10**9 // ((frame_bytes + WIRE_OVERHEAD_BYTES) * 8)


def _adaptive_moderation_has_profiles_of_its_own(config: TrialConfig) -> None:
    nic, default = config.nic, NicConfig()
    if nic.moderation == "adaptive":
        for name in ("rx_usecs", "rx_frames"):
            if getattr(nic, name) != getattr(default, name):
                raise ConfigError(
                    f"nic.{name}", getattr(nic, name), "nic.moderation = adaptive chooses it; leave one out"
                )


def _busy_polling_has_a_reader_for_each_queue(config: TrialConfig) -> None:
    nic, app = config.nic, config.app
    if nic.napi != "busy-poll":
        return
    if app.reader in ("drop", "forward") or app.reader_cpu != "same" or app.readers != nic.queues:
        raise ConfigError(
            "nic.napi",
            nic.napi,
            f"needs an application on each queue's CPU; use app.reader = fast or slow, app.reader_cpu = same "
            f"and app.readers = nic.queues = {nic.queues}",
        )
    if nic.moderation == "adaptive":
        raise ConfigError("nic.moderation", nic.moderation, "nic.napi = busy-poll has none; use fixed")


def _loops_have_no_packets_to_mark(config: TrialConfig) -> None:
    if config.workload != NIC_WORKLOAD and not config.pool.recycle:
        raise ConfigError(
            "pool.recycle", False, f"workload = {config.workload} has no packets; leave it true, or use nic"
        )


def _a_stall_ends_before_the_next(config: TrialConfig) -> None:
    app = config.app
    if app.reader == "stalled" and app.stall_ms >= app.stall_every_ms:
        raise ConfigError(
            "app.stall_ms", app.stall_ms, f"must be below app.stall_every_ms = {app.stall_every_ms}"
        )


def _ports_are_udp(config: TrialConfig) -> None:
    if config.app.reader == "udp-no-port" and config.app.protocol != "udp":
        raise ConfigError("app.protocol", config.app.protocol, "app.reader = udp-no-port needs udp")


def _cpus_are_enough(config: TrialConfig) -> None:
    """Queues, readers with a CPU of their own, RPS CPUs, the tap's and those of redirect targets."""
    wanted = cpus_wanted(config)
    total = sum(wanted.values())
    if total > MAX_CPUS:
        name = max(wanted, key=lambda name: wanted[name])
        parts = " + ".join(f"{cpus} of {field}" for field, cpus in wanted.items() if cpus)
        raise ConfigError(name, wanted[name], f"{parts} are {total} CPUs; use at most {MAX_CPUS} in all")


def _what_cannot_go_together_stays_apart(config: TrialConfig) -> None:
    app, stack = config.app, config.stack
    if config.life.event != "none" and (stack.gro or stack.rps):
        raise ConfigError(
            "life.event",
            config.life.event,
            "packets that GRO or a backlog holds would need their device; use none, or stack.gro = false and "
            "stack.rps = 0",
        )
    if app.reader == "forward" and stack.gro:
        raise ConfigError(
            "stack.gro", stack.gro, "merged packets would have to be cut up to be sent (app.reader = forward)"
        )
    if redirects_to_cpus(config) and config.xdp.redirect_to == "cpumap" and app.protocol == "tcp":
        raise ConfigError(
            "app.protocol",
            app.protocol,
            "xdp.redirect_to = cpumap needs udp, whose frees are not deferred",
        )


def cpus_wanted(config: TrialConfig) -> dict[str, int]:
    """CPUs that take part, by the field that asks for them."""
    app, stack = config.app, config.stack
    return {
        "nic.queues": max(config.nic.queues, config.life.queues),
        "app.readers": app.readers if reads_sockets(config) and app.reader_cpu == "other" else 0,
        "stack.rps": stack.rps,
        "stack.capture_percent": int(stack.capture_percent > 0),
        "xdp.redirect_cpus": config.xdp.redirect_cpus if redirects_to_cpus(config) else 0,
    }


def redirects_to_cpus(config: TrialConfig) -> bool:
    """Whether XDP frames go to targets with CPUs of their own."""
    return config.xdp.redirect_percent > 0 and config.xdp.redirect_to in ("device", "cpumap")


def reads_sockets(config: TrialConfig) -> bool:
    """Whether packets come to a socket, and are not dropped before."""
    return config.app.reader not in (*DROPPING_READERS, "forward")


def _flows_come_from_the_capture(leaf: str) -> Callable[[TrialConfig], None]:
    """The check that this field is left alone where a capture is replayed."""
    default = TrafficConfig.model_fields[leaf].default

    def check(config: TrialConfig) -> None:
        value = getattr(config.traffic, leaf)
        if config.traffic.kind == "capture" and value != default:
            raise ConfigError(
                f"traffic.{leaf}",
                value,
                f"a capture has flows of its own; leave it {default}, or use another traffic.kind",
            )

    return check


WIRE_OVERHEAD_BYTES = 20
"""preamble and start delimiter (8) and inter-frame gap (12) around each Ethernet frame"""

IMIX_BYTES = (64,) * 7 + (594,) * 4 + (1518,)
"""the simple IMIX of 7:4:1 as Ethernet frames with FCS"""

MEAN_IMIX_BYTES = sum(IMIX_BYTES) // len(IMIX_BYTES)

DROPPING_READERS = ("drop", "udp-no-port")

WORKING_READERS = ("slow", "stalled", "hold")
"""readers that work app.work_ns on a packet"""

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

RULES = (
    Rule(("nic.rx_ring", "life.rx_ring"), _rx_rings_are_powers_of_two),
    Rule(
        ("life.event", "life.at_ms", "life.down_ms", "duration_ms", "warmup_ms"),
        _what_happens_to_the_device_happens_in_the_trial,
    ),
    Rule(("life.event", "life.rx_ring", "life.queues"), _only_a_device_that_comes_up_again_changes),
    Rule(("nic.tx_ring",), _tx_ring_is_a_power_of_two),
    Rule(
        ("xdp.pass_percent", "xdp.drop_percent", "xdp.tx_percent", "xdp.redirect_percent"), _verdicts_add_up
    ),
    Rule(("xdp.redirect_percent", "xdp.redirect_to"), _redirects_have_a_target),
    Rule(
        ("life.event", "app.reader", "xdp.attached", "xdp.pass_percent"), _a_device_that_sends_stays_as_it_is
    ),
    Rule(("workload", "pool.recycle"), _loops_have_no_packets_to_mark),
    Rule(("nic.moderation", "nic.rx_usecs", "nic.rx_frames"), _adaptive_moderation_has_profiles_of_its_own),
    Rule(
        ("nic.napi", "nic.queues", "nic.moderation", "app.reader", "app.reader_cpu", "app.readers"),
        _busy_polling_has_a_reader_for_each_queue,
    ),
    Rule(("warmup_ms", "duration_ms"), _warmup_ends_before_the_trial),
    Rule(("app.reader", "app.stall_ms", "app.stall_every_ms"), _a_stall_ends_before_the_next),
    Rule(("app.reader", "app.protocol"), _ports_are_udp),
    Rule(
        (
            "app.reader",
            "app.reader_cpu",
            "app.readers",
            "nic.queues",
            "life.queues",
            "stack.rps",
            "stack.capture_percent",
            "xdp.redirect_percent",
            "xdp.redirect_to",
            "xdp.redirect_cpus",
        ),
        _cpus_are_enough,
    ),
    Rule(
        (
            "life.event",
            "stack.gro",
            "stack.rps",
            "app.reader",
            "app.protocol",
            "xdp.redirect_percent",
            "xdp.redirect_to",
        ),
        _what_cannot_go_together_stays_apart,
    ),
    Rule(
        ("traffic.kind", "traffic.rate_pps", "traffic.packet_size", "nic.link_gbps"),
        _offered_load_fits_the_link,
    ),
    Rule(
        ("traffic.kind", "traffic.ramp_to_pps", "traffic.packet_size", "nic.link_gbps"),
        _end_of_the_ramp_fits_the_link,
    ),
    *(
        Rule(("traffic.kind", f"traffic.{leaf}"), _flows_come_from_the_capture(leaf))
        for leaf in ("flows", "flow_skew", "flow_packets", "train_packets")
    ),
)


@cache
def fields() -> tuple[TrialField, ...]:
    """All leaves in the order of declaration, groups after the plain ones."""
    plain: list[TrialField] = []
    grouped: list[TrialField] = []
    for name, info in TrialConfig.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, _Group):
            grouped += [_field(f"{name}.{leaf}", i) for leaf, i in info.annotation.model_fields.items()]
        else:
            plain.append(_field(name, info))
    return tuple(plain + grouped)


def field(name: str) -> TrialField:
    """The field of this name.

    Raises:
        ConfigError: unknown; the message names the nearest one.
    """
    check_name(name)
    return _by_name()[name]


def check_name(name: str) -> None:
    """Raise :class:`ConfigError` naming the nearest field if there is no field of this name."""
    if name not in _by_name():
        near = difflib.get_close_matches(name, list(_by_name()), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see farm fields"
        raise ConfigError(name, None, f"unknown field; {hint}")


def seed_matters(config: TrialConfig) -> bool:
    """Whether anything in this trial is drawn at random; if not, one seed stands for all."""
    traffic, app = config.traffic, config.app
    if config.workload != NIC_WORKLOAD:
        return False
    if app.reader in WORKING_READERS and app.work_distribution == "exponential":
        return True
    if 0 < config.stack.capture_percent < 100:
        return True
    if draws_verdicts(config):
        return True
    if traffic.kind == "capture":
        return False
    if draws_flows(config):
        return True
    return traffic.kind in ("poisson", "bursts", "ramp") or traffic.packet_size == "imix"


def draws_flows(config: TrialConfig) -> bool:
    """Whether a packet's flow is drawn: with one flow that never ends there is nothing to draw."""
    traffic = config.traffic
    return traffic.kind != "capture" and (traffic.flows > 1 or traffic.flow_packets > 0)


def attaches_program(config: TrialConfig) -> bool:
    """Whether an XDP program runs on each packet."""
    return config.xdp.attached or config.xdp.pass_percent < 100


def draws_verdicts(config: TrialConfig) -> bool:
    """Whether XDP verdicts are drawn: where not all packets get the same."""
    xdp = config.xdp
    return 100 not in (xdp.pass_percent, xdp.drop_percent, xdp.tx_percent, xdp.redirect_percent)


@cache
def _by_name() -> dict[str, TrialField]:
    return {field.name: field for field in fields()}


@cache
def _known_parts() -> frozenset[str]:
    return frozenset(part for name in _by_name() for part in name.split("."))


def _field(name: str, info: FieldInfo) -> TrialField:
    # rebuilt from the annotation and its constraints: the adapter has to be as strict as the model
    annotation: Any = info.annotation
    for constraint in info.metadata:
        annotation = Annotated[annotation, constraint]
    adapter = TypeAdapter(annotation, config=ConfigDict(strict=True))
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    schema = {**adapter.json_schema(), **extra}
    return TrialField(name, _kind(schema), info.default, info.description or "", adapter)


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    words = {"integer": "integer", "number": "number", "boolean": "true | false", "string": "text"}
    word = words[schema["type"]]
    low = schema.get("minimum")
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return word if low is None else f"{word} {low}..{high}"


def _remedy(name: str) -> str:
    return f"use {_by_name()[name].kind}" if name in _by_name() else "see farm fields"


def _literal(text: str) -> Value:
    """The TOML scalar that a text spells, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text.replace("_", ""))
        except ValueError:
            continue
    return text
