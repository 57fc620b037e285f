"""The pool under real load on this machine, beside what the model predicts with a profile of it.

What is measured here is no record of a trial and never comes into a store.
"""

import platform
import tempfile
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from farm.errors import FarmError
from farm.ray.kinds import kinds
from farm.ray.kinds import measure as measure_kind

if TYPE_CHECKING:
    from farm.ray.executor import RayExecutor
    from workers.host.load_bench import Measured, Predicted, Setting

FRAME_BYTES = (64, 1520)
RINGS = (64, 1024)
HOLDS = (1, 256, 2048)

REPEATS = 5
"""of each configuration, with each pool"""

APART = 1.1
"""two configurations whose measured times differ by more than this factor have an order"""
CLOSE = 0.25
"""the goal for a prediction: its relative error"""


class Row(NamedTuple):
    """One configuration."""

    setting: "Setting"
    measured: "Measured"
    """of the repeats, the least counts"""
    predicted: "Predicted"

    @property
    def measured_ns(self) -> float:
        """What counts."""
        return self.measured.ns_per_packet.value

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted.ns_per_packet / self.measured_ns - 1


class Order(NamedTuple):
    """Two configurations that differ, the measured faster one first."""

    faster: Row
    slower: Row

    @property
    def right(self) -> bool:
        """Whether the prediction says so too."""
        return self.faster.predicted.ns_per_packet < self.slower.predicted.ns_per_packet


class HostBench(NamedTuple):
    """All that was measured and predicted."""

    machine: str
    kernel: str
    """of the machine's operating system"""
    profile: str
    """its title"""
    rows: list[Row]

    @property
    def orders(self) -> list[Order]:
        """Every two configurations whose measured times are APART."""
        return orders(self.rows)

    @property
    def wrong(self) -> list[Order]:
        """Those that the prediction has the other way round."""
        return [order for order in self.orders if not order.right]

    @property
    def close(self) -> int:
        """Predictions that reach the goal."""
        return sum(abs(row.error) <= CLOSE for row in self.rows)


def orders(rows: Sequence[Row]) -> list[Order]:
    """Every two configurations whose measured times are APART."""
    found = []
    for one, other in combinations(rows, 2):
        faster, slower = sorted((one, other), key=lambda row: row.measured_ns)
        if slower.measured_ns > APART * faster.measured_ns:
            found.append(Order(faster, slower))
    return found


def bench_host(profile: str | None, report: Callable[[str], None]) -> HostBench:
    """Measure and predict every configuration; under a minute.

    Args:
        profile: of this machine, as ``farm arch calibrate`` wrote it; without one, it is calibrated first.
        report: hears what happens next.

    Raises:
        FarmError: there are not two CPUs.
        ProfileError: there is no such profile.
        CheckError: pages or packets were lost.
    """
    from workers.host.facts import facts
    from workers.host.load_bench import Setting, measure, predict
    from workers.profiles import arch

    machine = facts()
    if len(machine.cpus) < 2:
        raise FarmError(
            f"bench host: {len(machine.cpus)} CPU to run on; a NAPI thread and a reader need two of their own"
        )
    cpus = (machine.cpus[0], machine.cpus[-1])
    settings = [
        Setting(ring, hold, recycle, frame_bytes)
        for frame_bytes, ring, hold, recycle in product(FRAME_BYTES, RINGS, HOLDS, (True, False))
    ]
    with tempfile.TemporaryDirectory(prefix="farm-bench-") as directory:
        calibrated, loaded = _profiles(profile, Path(directory), report)
        report("real threads")
        measured = measure(settings, arch.load(loaded), cpus, REPEATS)
        report("simulated machine")
        predicted = [predict(setting, loaded) for setting in settings]
    rows = [Row(*parts) for parts in zip(settings, measured, predicted, strict=True)]
    return HostBench(machine.model, platform.release(), calibrated, rows)


def bench_kinds(executor: "RayExecutor", report: Callable[[str], None]) -> list[HostBench]:
    """The same on one machine of each kind of a cluster, each with a profile of its own.

    Raises:
        ExecutorError: a node was lost, or it has not two CPUs.
    """
    found = []
    for kind in kinds(executor):
        report(f"{kind.facts.model}, one of {kind.machines}")
        found.append(measure_kind(executor, kind, bench_alone))
    return found


def bench_alone() -> HostBench:
    """On the node where this is called."""
    return bench_host(None, lambda _: None)


def _profiles(profile: str | None, directory: Path, report: Callable[[str], None]) -> tuple[str, str]:
    """The machine's profile by its title, and a file with what differs from it under this load."""
    from farm import calibrate
    from workers.host.calibrate import load_prices, table_text
    from workers.profiles import arch

    if profile is None:
        written = calibrate.here(directory / "machine.toml", None, False, report)
        profile = str(written.path)
    calibrated = arch.load(profile)
    report("prices of the package's own pool and page allocator")
    parent = profile if profile in arch.names() else str(Path(profile).resolve())
    text = table_text(calibrated.title, "under the load of farm bench host", parent, load_prices(calibrated))
    loaded = directory / "load.toml"
    calibrate.write_profile(loaded, text)
    return calibrated.title, str(loaded)


HEADINGS = ("frame", "ring", "hold", "recycle", "ns", "median", "new", "predicted", "new", "error")
"""``new`` are pages from the page allocator, of all that were allocated"""


def table(found: HostBench) -> list[tuple[str, ...]]:
    """Rows for the terminal."""
    return [
        (
            str(row.setting.frame_bytes),
            str(row.setting.ring),
            str(row.setting.hold),
            "on" if row.setting.recycle else "off",
            f"{row.measured_ns:.1f}",
            f"{row.measured.ns_per_packet.high:.1f}",
            f"{row.measured.new_page_ratio:.0%}",
            f"{row.predicted.ns_per_packet:.1f}",
            f"{row.predicted.new_page_ratio:.0%}",
            f"{100 * row.error:+.0f}%",
        )
        for row in found.rows
    ]


def summary(found: HostBench) -> list[str]:
    """What the rows come to, a line each."""
    wrong = found.wrong
    lines = [
        f"{found.close} of {len(found.rows)} predictions within {CLOSE:.0%}; "
        f"{len(found.orders) - len(wrong)} of {len(found.orders)} orders right "
        f"of configurations that differ by more than {APART - 1:.0%}",
    ]
    gains = [order for order in found.orders if _differ_in_recycling_only(order)]
    if gains:
        lines.append(f"recycling on against off: {sum(order.right for order in gains)} of {len(gains)} right")
    worst = sorted(wrong, key=lambda order: order.faster.measured_ns / order.slower.measured_ns)
    for order in worst[:3]:
        lines.append(f"wrong: {_words(order.faster)} is faster than {_words(order.slower)}")
    return lines


def _differ_in_recycling_only(order: Order) -> bool:
    one, other = order.faster.setting, order.slower.setting
    return one.recycle != other.recycle and one._replace(recycle=other.recycle) == other


def _words(row: Row) -> str:
    setting = row.setting
    recycling = "recycled" if setting.recycle else "not recycled"
    return (
        f"{setting.frame_bytes} bytes, ring {setting.ring}, hold {setting.hold}, {recycling} "
        f"({row.measured_ns:.0f} ns, predicted {row.predicted.ns_per_packet:.0f})"
    )


def as_json(found: HostBench) -> dict[str, object]:
    """The same for a program, and a file of samples for :mod:`farm.answers.samples`; what was measured and
    what was predicted are apart in every row."""
    from workers.model import model_digest

    return {
        "conditions": {"machine": found.machine, "kernel": found.kernel, "model": model_digest()},
        "measures": {"ns_per_packet": {"unit": "ns", "better": "lower"}},
        "profile": found.profile,
        "rows": [
            {
                "setting": row.setting._asdict(),
                "samples": {"ns_per_packet": list(row.measured.by_place)},
                "measured": {
                    "ns_per_packet": row.measured_ns,
                    "median_ns_per_packet": row.measured.ns_per_packet.high,
                    "new_page_ratio": row.measured.new_page_ratio,
                },
                "predicted": row.predicted._asdict(),
                "error_ratio": row.error,
            }
            for row in found.rows
        ],
        "within_goal": found.close,
        "orders": len(found.orders),
        "orders_wrong": [
            {"faster": order.faster.setting._asdict(), "slower": order.slower.setting._asdict()}
            for order in found.wrong
        ],
    }
