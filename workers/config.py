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

from pool_impl.release import DEFAULT_RELEASE, RELEASES, rules_of
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


class DriverConfig(_Group):
    """How the driver uses the pool."""

    model: Annotated[
        Literal[
            "page-per-packet",
            "replace-before-pass",
            "fragments",
            "header-split",
            "page-allocator",
            "slab",
        ],
        Field(
            description="receive pattern: page-per-packet refills after the poll, as mvneta; "
            "replace-before-pass has a new page before it lets go of the packet's, as mvpp2; "
            "fragments has several buffers in a page, as hns3; header-split has headers in parts of pages "
            "and payload in pages of another pool; without a pool: page-allocator has a page, "
            "slab part of a block of the network core for each packet"
        ),
    ] = "page-per-packet"
    buffer_bytes: Annotated[
        Literal[1024, 2048, 4096], Field(description="buffer of each descriptor, for fragments")
    ] = 2048
    copybreak_bytes: Annotated[
        Annotated[int, Field(ge=0, le=1024)] | Literal["usual"],
        Field(
            description="packets up to this many bytes are copied and their buffer is posted again; "
            "0: none; usual: as in the modelled driver, 256 for fragments and else 0"
        ),
    ] = "usual"
    sync: Annotated[
        Literal["pool", "driver"],
        Field(
            description="who syncs a buffer for the device: the pool, when a page is mapped and when it "
            "returns, or the driver, when it posts the page"
        ),
    ] = "pool"


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


class AppConfig(_Group):
    """Who consumes the packets."""

    reader: Annotated[
        Literal["drop", "fast", "slow"],
        Field(
            description="drop: early drop in the stack; fast: a socket reader that only receives; "
            "slow: one that works app.work_ns on each packet"
        ),
    ] = "drop"
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
            description="time a slow reader works on a packet after receiving it; the mean if it is drawn",
        ),
    ] = 2_500
    work_distribution: Annotated[
        Literal["constant", "exponential"],
        Field(description="of a slow reader's work: the same for each packet, or drawn with that mean"),
    ] = "constant"
    socket_bytes: Annotated[
        int,
        Field(ge=2304, le=1 << 30, description="receive buffer limit, counted in truesize as SO_RCVBUF"),
    ] = 212_992


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
    traffic: TrafficConfig = TrafficConfig()
    app: AppConfig = AppConfig()

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


def _rx_ring_is_a_power_of_two(config: TrialConfig) -> None:
    size = config.nic.rx_ring
    if size & (size - 1):
        raise ConfigError("nic.rx_ring", size, f"use a power of two, such as {1 << size.bit_length()}")


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


def _loops_have_no_packets_to_mark(config: TrialConfig) -> None:
    if config.workload != NIC_WORKLOAD and not config.pool.recycle:
        raise ConfigError(
            "pool.recycle", False, f"workload = {config.workload} has no packets; leave it true, or use nic"
        )


def _release_has_fragments(config: TrialConfig) -> None:
    if config.driver.model in FRAGMENT_MODELS and rules_of(config.kernel).frag_bias == 0:
        raise ConfigError(
            "driver.model",
            config.driver.model,
            f"kernel = {config.kernel} has no fragments; use a later kernel, or page-per-packet",
        )


def _pages_in_fragments_stay(config: TrialConfig) -> None:
    if config.driver.model in FRAGMENT_MODELS and not config.pool.recycle:
        raise ConfigError(
            "pool.recycle",
            False,
            f"with driver.model = {config.driver.model} a page has several packets and cannot leave the pool "
            "with one; leave it true, or use page-per-packet",
        )


def _headers_apart_are_not_copied(config: TrialConfig) -> None:
    copybreak = config.driver.copybreak_bytes
    if config.driver.model == "header-split" and copybreak not in ("usual", 0):
        raise ConfigError(
            "driver.copybreak_bytes",
            copybreak,
            "driver.model = header-split has small packets in header buffers; leave it usual, or use "
            "fragments",
        )


def _only_pools_recycle(leaf: str) -> Callable[[TrialConfig], None]:
    """The check that this field of the pool is left alone where there is no pool."""
    default = PoolConfig.model_fields[leaf].default

    def check(config: TrialConfig) -> None:
        value = getattr(config.pool, leaf)
        if config.driver.model in UNPOOLED_MODELS and value != default:
            raise ConfigError(
                f"pool.{leaf}",
                value,
                f"driver.model = {config.driver.model} has no pool; leave it {default}, or use "
                "page-per-packet",
            )

    return check


def _mapping_syncs(config: TrialConfig) -> None:
    if config.driver.model in UNPOOLED_MODELS and config.driver.sync != "pool":
        raise ConfigError(
            "driver.sync",
            config.driver.sync,
            f"driver.model = {config.driver.model} maps each buffer, which syncs it; leave it pool, or use "
            "page-per-packet",
        )


def _only_fragments_have_a_size(config: TrialConfig) -> None:
    default = DriverConfig.model_fields["buffer_bytes"].default
    if config.driver.model != "fragments" and config.driver.buffer_bytes != default:
        raise ConfigError(
            "driver.buffer_bytes",
            config.driver.buffer_bytes,
            f"with driver.model = {config.driver.model} a buffer is a page; leave it {default}, or use "
            "fragments",
        )


def _replaced_packets_have_one_page(config: TrialConfig) -> None:
    size = config.traffic.packet_size
    if config.driver.model != "replace-before-pass" or config.traffic.kind == "capture":
        return
    if isinstance(size, int) and size > MOST_BYTES_OF_A_PAGE:
        raise ConfigError(
            "traffic.packet_size",
            size,
            f"driver.model = replace-before-pass takes packets of one page, {MOST_BYTES_OF_A_PAGE} bytes; "
            "use smaller ones, or page-per-packet",
        )


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

FRAGMENT_MODELS = ("fragments", "header-split")
UNPOOLED_MODELS = ("page-allocator", "slab")

MOST_BYTES_OF_A_PAGE = 3520
"""what the device may write to a page: without 256 bytes of headroom and 320 of shared info"""

IMIX_BYTES = (64,) * 7 + (594,) * 4 + (1518,)
"""the simple IMIX of 7:4:1 as Ethernet frames with FCS"""

MEAN_IMIX_BYTES = sum(IMIX_BYTES) // len(IMIX_BYTES)

SEED_FIELDS = (
    "workload",
    "traffic.kind",
    "traffic.packet_size",
    "traffic.flows",
    "traffic.flow_packets",
    "app.reader",
    "app.work_distribution",
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
    Rule(("nic.rx_ring",), _rx_ring_is_a_power_of_two),
    Rule(("workload", "pool.recycle"), _loops_have_no_packets_to_mark),
    Rule(("driver.model", "kernel"), _release_has_fragments),
    Rule(("driver.model", "pool.recycle"), _pages_in_fragments_stay),
    Rule(("driver.model", "driver.copybreak_bytes"), _headers_apart_are_not_copied),
    *(Rule(("driver.model", f"pool.{leaf}"), _only_pools_recycle(leaf)) for leaf in ("recycle", "variant")),
    Rule(("driver.model", "driver.sync"), _mapping_syncs),
    Rule(("driver.model", "driver.buffer_bytes"), _only_fragments_have_a_size),
    Rule(("driver.model", "traffic.kind", "traffic.packet_size"), _replaced_packets_have_one_page),
    Rule(("warmup_ms", "duration_ms"), _warmup_ends_before_the_trial),
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
    if app.reader == "slow" and app.work_distribution == "exponential":
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
        return " | ".join(str(choice) for choice in schema["enum"])
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
