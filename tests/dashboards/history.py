"""What a run that is on, a real host and Ray would have exposed: counters that climb steadily."""

import math
import time
from typing import NamedTuple

from dashboards import external, health
from workers.measures import COUNTERS

SECONDS = 1200
STEP_SECONDS = 15


class Line(NamedTuple):
    """A series: its value at the end, and how much it gained per second."""

    name: str
    labels: str
    end: float
    slope: float = 0.0


def slope_of(counter: str) -> float:
    """Of a real host's pool counter, per second."""
    return 64.0 + 32 * COUNTERS.index(counter)


def lines(sweep: str) -> list[Line]:
    """Two runs of one name would be too many: one driver, a host with two devices, two Ray nodes."""
    one = f'sweep="{sweep}",job="page-pool-farm-run",instance="driver"'
    found = [
        Line(health.LIVE_PACKETS.name, one, 8e6, 2048.0),
        Line(health.LIVE_TRIAL_SECONDS.name, one, 9e3, 1.5),
        Line(health.LIVE_BATCHES.name, one, 5e3, 0.5),
        Line(health.LIVE_SLOTS.name, one, 2),
        Line(health.LIVE_SECONDS_LEFT.name, one, 77),
        Line(external.RAY_CPU_PERCENT, 'instance="head",RayNodeType="head"', 25),
        Line(external.RAY_CPU_PERCENT, 'instance="worker",RayNodeType="worker"', 75),
        Line(external.RAY_MEMORY_USED_BYTES, 'instance="head",RayNodeType="head"', 1e9),
        Line(external.RAY_MEMORY_TOTAL_BYTES, 'instance="head",RayNodeType="head"', 4e9),
        Line(external.RAY_TASKS, 'instance="head",State="RUNNING",Name="a"', 2),
        Line(external.RAY_TASKS, 'instance="head",State="RUNNING",Name="b"', 3),
    ]
    for state, count in (("done", 70), ("failed", 1), ("planned", 144)):
        found.append(Line(health.LIVE_TRIALS.name, f'{one},state="{state}"', count))
    for counter in COUNTERS:
        for device, factor in (("eth0", 1), ("eth1", 7)):
            labels = f'instance="host",job="node",device="{device}"'
            name = external.ethtool_name(counter)
            found.append(Line(name, labels, 1e9, factor * slope_of(counter)))
    return found


def end() -> float:
    """A time of now that a history may end at."""
    return math.floor(time.time()) - 60.0


def openmetrics(sweep: str, until: float) -> str:
    """The text that promtool makes blocks of."""
    text = []
    named = ""
    for line in sorted(lines(sweep)):
        if line.name != named:
            named = line.name
            text.append(f"# TYPE {named} unknown")
        for back in range(SECONDS, -1, -STEP_SECONDS):
            text.append(f"{line.name}{{{line.labels}}} {line.end - back * line.slope} {until - back}")
    return "\n".join([*text, "# EOF", ""])
