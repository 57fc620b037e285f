"""From a configuration to the XDP program, the transmit rings and the redirect targets of a trial."""

from typing import Any, NamedTuple

from pool_impl import xdp as xdp_memory
from pool_impl.layout import Host, records
from workers.arrivals.traffic import FOREVER, PS_PER_US
from workers.config import TrialConfig
from workers.fields.derived import attaches_program, draws_verdicts, most_queues, redirects_to_cpus
from workers.net.targets import CPUMAP_BULK_FRAMES, DEVICE_BULK_FRAMES
from workers.state import (
    FRAME,
    FRAME_QUEUE,
    IN_TARGET,
    IN_TX,
    LINK,
    TARGET,
    TO_AF_XDP,
    TO_CPUMAP,
    TO_DEVICE,
    TO_NOWHERE,
    XDP,
)

REDIRECT_TO = {"": TO_NOWHERE, "device": TO_DEVICE, "cpumap": TO_CPUMAP, "af_xdp": TO_AF_XDP}

OWN_LINK, OTHER_LINK = range(2)


class Egress(NamedTuple):
    """Tables and records of :class:`workers.state.Trial`, by their names there."""

    frames: Any
    frame_queues: Any
    links: Any
    xdp: Any
    targets: Any
    xdp_memory: Any
    returned: Any


def new_egress(config: TrialConfig, first_cpu: int) -> Egress:
    """What a trial needs of them, nothing waiting in it.

    Args:
        first_cpu: the first one without a receive queue or a reader, for targets.
    """
    xdp = _program(config)
    limits = _limits(config, xdp)
    queues = records(FRAME_QUEUE, len(limits))
    slots = 0
    for number, limit in enumerate(limits):
        queue = queues[number]
        queue.first = slots
        queue.limit = limit
        queue.mask = (1 << (limit - 1).bit_length()) - 1
        slots += int(queue.mask) + 1
        is_target = xdp.first_target <= number < xdp.first_bulk
        queue.link = OTHER_LINK if is_target else OWN_LINK
        sends = number < xdp.first_target or (is_target and xdp.redirect_to == TO_DEVICE)
        queue.location = IN_TX if sends else IN_TARGET
    links = records(LINK, 2)
    links.gbps = config.nic.tx_gbps or config.nic.link_gbps
    targets = records(TARGET, int(xdp.targets))
    for number in range(len(targets)):
        targets[number].cpu = first_cpu + number
        targets[number].event_ps = FOREVER
        targets[number].usecs_ps = config.nic.rx_usecs * PS_PER_US
    return Egress(
        frames=records(FRAME, slots),
        frame_queues=queues,
        links=links,
        xdp=xdp,
        targets=targets,
        xdp_memory=records(xdp_memory.XDP_MEMORY, 1)[0],
        returned=records(xdp_memory.BULK, 1)[0],
    )


def register_pools(config: TrialConfig, host: Host, egress: Egress, queues: Any, pools: int) -> None:
    """Make each queue's pool the memory of its frames, where there is a program (spec 1.6), and those for
    later that of later ones: a pool's id is its number and one."""
    if attaches_program(config):
        for number in range(pools):
            identity = xdp_memory.register(host, egress.xdp_memory, number)
            if number < len(queues):
                queues[number].memory_id = identity


def transmits(config: TrialConfig) -> bool:
    """Whether the receive queues have transmit rings beside them."""
    return config.app.reader == "forward" or config.xdp.tx_percent > 0


def most_frames(config: TrialConfig) -> int:
    """How many frames all frame queues hold at the most."""
    return sum(_limits(config, _program(config)))


def _program(config: TrialConfig) -> Any:
    fields = config.xdp
    xdp = records(XDP, 1)[0]
    xdp.drawn = int(draws_verdicts(config))
    xdp.drop_below = fields.drop_percent
    xdp.tx_below = xdp.drop_below + fields.tx_percent
    xdp.redirect_below = xdp.tx_below + fields.redirect_percent
    if fields.redirect_percent > 0:
        xdp.redirect_to = REDIRECT_TO[fields.redirect_to]
        xdp.targets = fields.redirect_cpus if redirects_to_cpus(config) else 0
    xdp.first_target = most_queues(config) if transmits(config) else 0
    xdp.first_bulk = xdp.first_target + xdp.targets
    return xdp


def _limits(config: TrialConfig, xdp: Any) -> list[int]:
    """Of all frame queues, in their order."""
    to_device = xdp.redirect_to == TO_DEVICE
    of_target = config.nic.tx_ring if to_device else config.xdp.cpumap_frames
    of_bulk = DEVICE_BULK_FRAMES if to_device else CPUMAP_BULK_FRAMES
    targets = int(xdp.targets)
    rings = [config.nic.tx_ring] * int(xdp.first_target)
    return rings + [of_target] * targets + [of_bulk] * (most_queues(config) * targets)
